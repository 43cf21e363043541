/**
 * What a comparison's answer says, derived for the screen. Pure. Figures are those of webapp/comparisons.py (`FIGURES`), of
 * the whole work; a unit of work is their share by the run's count. Modelled cycles and executed instructions are never added.
 *
 * @typedef {{kind: string, cause: number, path: string[], disposition: string, count: number, crossed: number, cycles: number,
 *            exit: boolean}} ExitRow
 * @typedef {{workload: string, count: number, configuration: string, problem?: import('../protocol.js').Problem,
 *            figures?: Record<string, number>, exits?: ExitRow[], switches?: {source: string, target: string, count: number}[],
 *            said?: string, output_sha256?: string}} Run
 * @typedef {{figures: Record<string, number>, exits: ExitRow[], switches: {source: string, target: string, count: number}[],
 *            said: string, output_sha256: string}} Measured
 * @typedef {{id: string, created: number | null, workloads: string[], configurations: string[], done: number, total: number,
 *            costs_text: string, query: string}} Summary
 * @typedef {Summary & {runs: Run[]}} Comparison
 * @typedef {{id: string, per_unit: boolean, repeats: boolean}} Figure
 * @typedef {{workloads: {name: string, count: number}[], configurations: {id: string, stack: string, technique: string | null}[],
 *            techniques: string[], switches: {id: string, stacks: string[], techniques: string[]}[], usual: Asked, figures: Figure[],
 *            profiles: string[], own_costs: string}} Choices
 * @typedef {{workloads: string[], configurations: string[], costs?: string}} Asked
 * @typedef {{key: string, descending: boolean}} Sort
 */

/** @param {Run} run @returns {run is Run & Measured} */
export const measured = (run) => run.figures !== undefined;

/** `syscall:500` as its parts. @param {string} text @param {Choices} choices @returns {{name: string, count: number}} */
export function workloadOf(text, choices) {
  const [name, count] = text.split(':');
  return { name, count: Number(count ?? choices.workloads.find((row) => row.name === name)?.count ?? 0) };
}

/** `xen/hardware-assist+no-vmid` as its parts. @param {string} text */
export function configurationOf(text) {
  const [head, ...switches] = text.split('+');
  const [stack, technique = null] = head.split('/');
  return { stack, technique, switches };
}

/** How a host virtualizes, as `configurationOf` reads it. @param {{stack: string, technique: string | null, switches: string[]}} host */
export const configurationIn = ({ stack, technique, switches }) => [technique === null ? stack : `${stack}/${technique}`, ...[...switches].sort()].join('+');

/**
 * A configuration with those of the chosen switches that mean something there.
 * @param {{id: string, stack: string, technique: string | null}} way @param {Iterable<string>} switches @param {Choices} choices
 */
export function withSwitches(way, switches, choices) {
  const chosen = new Set(switches);
  const fitting = choices.switches.filter((row) => chosen.has(row.id) && row.stacks.includes(way.stack)
    && (way.technique === null || row.techniques.includes(way.technique))).map((row) => row.id).sort();
  return [way.id, ...fitting].join('+');
}

/**
 * What the address of a page asks for. @param {string} search as `location.search` @returns {Asked | null}
 */
export function askedBy(search) {
  const given = new URLSearchParams(search.replaceAll('+', '%2B'));
  const [workloads, configurations] = ['workload', 'configs'].map((name) => (given.get(name) ?? '').split(',').filter(Boolean));
  const costs = given.get('costs') ?? '';
  return workloads.length && configurations.length ? { workloads, configurations, costs } : null;
}

/** Runs of each workload, in the order of the comparison. @param {Run[]} runs @returns {Map<string, Run[]>} by `name:count` */
export function byWorkload(runs) {
  /** @type {Map<string, Run[]>} */
  const found = new Map();
  for (const run of runs) {
    const key = `${run.workload}:${run.count}`;
    found.set(key, [...(found.get(key) ?? []), run]);
  }
  return found;
}

/**
 * A run's figure as it is shown. @param {Run & Measured} run @param {Figure} figure @param {boolean} perUnit
 */
export const figureOf = (run, figure, perUnit) => run.figures[figure.id] / (perUnit && figure.per_unit ? run.count : 1);

/** The run to which ratios are: the one with most exits. @param {(Run & Measured)[]} runs */
export const baseOf = (runs) => runs.reduce((most, run) => (run.figures.exits > most.figures.exits ? run : most));

/** @param {number} value @param {number} base @returns {string} `0.25×`; nothing where there is nothing to compare with */
export const ratioText = (value, base) => (base > 0 ? `${Number((value / base).toPrecision(3))}×` : '–');

/**
 * Exits by a part of their name, most frequent of all runs first.
 * @param {(Run & Measured)[]} runs @param {(row: ExitRow) => string} sort
 * @returns {{sort: string, counts: number[]}[]} a count for each run
 */
export function exitsBy(runs, sort) {
  /** @type {Map<string, number[]>} */
  const found = new Map();
  runs.forEach((run, place) => {
    for (const row of run.exits) {
      if (!row.exit) continue;
      const counts = found.get(sort(row)) ?? runs.map(() => 0);
      counts[place] += row.count;
      found.set(sort(row), counts);
    }
  });
  return ordered(found);
}

/** Crossings between levels. @param {(Run & Measured)[]} runs @returns {{sort: string, counts: number[]}[]} sort: `user kernel` */
export function crossingsBy(runs) {
  /** @type {Map<string, number[]>} */
  const found = new Map();
  runs.forEach((run, place) => {
    for (const { source, target, count } of run.switches) {
      const counts = found.get(`${source} ${target}`) ?? runs.map(() => 0);
      counts[place] += count;
      found.set(`${source} ${target}`, counts);
    }
  });
  return ordered(found);
}

/** @param {Map<string, number[]>} found */
const ordered = (found) => [...found].map(([sort, counts]) => ({ sort, counts, all: counts.reduce((sum, count) => sum + count, 0) }))
  .sort((a, b) => b.all - a.all || (a.sort < b.sort ? -1 : 1)).map(({ sort, counts }) => ({ sort, counts }));

/**
 * Rows in the order that a reader chose; equal ones stay as they are.
 * @template T
 * @param {T[]} rows @param {(row: T) => string | number} value @param {boolean} descending
 */
export function sorted(rows, value, descending) {
  const sign = descending ? -1 : 1;
  return rows.map((row, index) => ({ row, index, key: value(row) })).sort((a, b) => {
    const order = typeof a.key === 'string' || typeof b.key === 'string' ? String(a.key).localeCompare(String(b.key)) : a.key - b.key;
    return sign * order || a.index - b.index;
  }).map(({ row }) => row);
}

/** @param {string} base64 @returns {ArrayBuffer} */
export function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer;
}
