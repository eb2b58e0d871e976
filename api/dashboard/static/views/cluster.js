// Node x time: one lane for each GPU (or each machine, where it has none), blocks are jobs.

import { laneChart } from "../charts/lanes.js";
import { armTone } from "../charts/tones.js";
import { getJson } from "../http.js";
import { showRefusal } from "../strips.js";

const seconds = (text) => Date.parse(text) / 1000;

export function mount(element) {
  const load = async () => {
    try {
      draw(await getJson("/v1/cluster"));
    } catch (error) {
      showRefusal(error, load);
    }
  };

  const draw = ({ nodes }) => {
    const wanted = element.dataset.node;
    const now = Date.now() / 1000;
    const lanes = [];
    const blocks = [];
    for (const node of nodes.filter(({ id }) => !wanted || id === wanted)) {
      const slots = Math.max(Math.round(node.num_gpus), 1);
      for (let slot = 0; slot < slots; slot += 1) lanes.push({ key: `${node.id} ${slot}`, label: node.num_gpus ? `${node.host} GPU ${slot}` : node.host, group: node.id });
      let slot = 0;
      for (const job of node.jobs) {
        const wide = Math.max(Math.round(job.num_gpus), 1);
        for (let i = 0; i < wide; i += 1, slot += 1) {
          blocks.push({ lane: `${node.id} ${slot % slots}`, from: seconds(job.since), to: null, label: job.job_id ?? `team ${job.team}`, detail: `${job.team}${job.user ? `, ${job.user}` : ""}`, tone: armTone(job.team), id: job.job_id });
        }
      }
      if (!node.is_alive) blocks.push({ lane: `${node.id} 0`, from: seconds(node.seen_at), to: null, label: "lost", detail: node.host, tone: "grey", isLost: true });
    }
    const teams = [...new Set(nodes.flatMap(({ jobs }) => jobs.map(({ team }) => team)))];
    laneChart(element, {
      title: "",
      empty: "No machine was seen yet.",
      range: [now - Number(element.dataset.range), now],
      now,
      lanes,
      blocks,
      legend: teams.map((team) => ({ name: team, tone: armTone(team) })),
      picked: ({ id }) => id && location.assign(`/jobs/${id}`),
    });
  };

  element.addEventListener("xsam:changed", load);
  document.addEventListener("xsam:changes", ({ detail }) => element.isConnected && detail.some(({ events }) => events.length) && load());
  load();
}
