// Node x time: one lane for each GPU (or for jobs beside each other, where there is none), blocks are jobs.

import { laneChart } from "../charts/lanes.js";
import { slots } from "../charts/slots.js";
import { TONES } from "../charts/tones.js";
import { getJson } from "../http.js";
import { showRefusal } from "../strips.js";

const MOST_BESIDE = 8;
const seconds = (text) => Date.parse(text) / 1000;

/** Return the lanes of a machine, and the blocks of its stays on them; a stay on a lost one ends where it was last seen. */
function rowsOf(node, items, toneOf) {
  const goneAt = node.is_alive || node.seen_at === null ? null : seconds(node.seen_at);
  const endOf = ({ started_at: start, finished_at: end }) => (end ? seconds(end) : goneAt && Math.max(goneAt, seconds(start)));
  const name = node.host ?? node.node_id.slice(0, 12);
  const stays = (own) => own.map((one) => ({ from: seconds(one.started_at), to: endOf(one), wide: Math.max(Math.round(one.num_gpus), 1) }));
  const [onGpus, others] = [items.filter(({ num_gpus: num }) => num > 0), items.filter(({ num_gpus: num }) => !num)];
  const num = Math.max(Math.round(node.num_gpus ?? 0), ...onGpus.map((one) => Math.round(one.num_gpus)), 0);
  const gpus = slots(stays(onGpus), num);
  const cpus = slots(stays(others), 0, MOST_BESIDE);
  const numBeside = Math.max(...cpus.flat().map((slot) => slot + 1), num ? 0 : 1);
  const lane = (kind, slot) => `${node.node_id} ${kind} ${slot}`;
  const block = (one, kind) => (slot) => ({
    lane: lane(kind, slot),
    from: seconds(one.started_at),
    to: endOf(one),
    label: one.name ?? one.job_id ?? `team ${one.team}`,
    detail: [one.team, one.user, one.attempt > 1 && `attempt ${one.attempt}`, one.outcome].filter(Boolean).join(", "),
    tone: toneOf(one.team),
    id: one.job_id,
  });
  const lanes = [
    ...Array.from({ length: num }, (_, slot) => ({ key: lane("gpu", slot), label: `${name} GPU ${slot}`, group: node.node_id })),
    ...Array.from({ length: numBeside }, (_, slot) => ({ key: lane("cpu", slot), label: num ? `${name} CPUs` : name, group: node.node_id })),
  ];
  const lost = goneAt === null ? [] : lanes.map(({ key }) => ({ lane: key, from: goneAt, to: null, label: "lost", detail: name, tone: "grey", isLost: true }));
  return {
    lanes,
    blocks: [...onGpus.flatMap((one, i) => gpus[i].map(block(one, "gpu"))), ...others.flatMap((one, i) => cpus[i].map(block(one, "cpu"))), ...lost],
  };
}

export function mount(element) {
  const load = async () => {
    const { node, range } = element.dataset;
    const since = new Date(Date.now() - 1000 * Number(range)).toISOString();
    try {
      draw(await getJson(`/v1/cluster/occupancy?${new URLSearchParams({ since, ...(node && { node }) })}`));
    } catch (error) {
      showRefusal(error, load);
    }
  };

  const draw = ({ since, until, nodes, items, has_more: hasMore }) => {
    const teams = [...new Set(items.map(({ team }) => team))].sort();
    const toneOf = (team) => TONES[teams.indexOf(team) % TONES.length];
    const rows = nodes.map((node) => rowsOf(node, items.filter(({ node_id: id }) => id === node.node_id), toneOf));
    laneChart(element, {
      title: "",
      note: hasMore ? "the latest stays only: there were more" : "",
      empty: "No machine was seen yet.",
      range: [seconds(since), seconds(until)],
      now: seconds(until),
      lanes: rows.flatMap(({ lanes }) => lanes),
      blocks: rows.flatMap(({ blocks }) => blocks),
      legend: teams.map((team) => ({ name: team, tone: toneOf(team) })),
      picked: ({ id }) => id && location.assign(`/jobs/${id}`),
    });
  };

  element.addEventListener("xsam:changed", load);
  document.addEventListener("xsam:changes", ({ detail }) => element.isConnected && detail.some(({ events }) => events.length) && load());
  load();
}
