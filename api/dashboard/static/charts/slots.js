// Which slots of a machine stays took: nobody notes which GPU a job had, so each takes the first ones that are free.

/**
 * Return the slots of each stay.
 *
 * stays: [{from, to (null: still), wide}] by start; num: slots that there are; most: as many as may be added when none is free.
 * Where there are too few even so, those are taken that are free first.
 */
export function slots(stays, num, most = num) {
  const ends = Array(num).fill(-Infinity);
  return stays.map(({ from, to, wide }) => {
    const free = [...ends.keys()].filter((slot) => ends[slot] <= from);
    while (free.length < wide && ends.length < most) free.push(ends.push(-Infinity) - 1);
    const busy = [...ends.keys()].filter((slot) => !free.includes(slot)).sort((a, b) => ends[a] - ends[b]);
    const taken = [...free, ...busy].slice(0, wide);
    for (const slot of taken) ends[slot] = to ?? Infinity;
    return taken;
  });
}
