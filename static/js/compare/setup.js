/**
 * What to compare: workloads with how often, and configurations as cells of stack by technique; switches that are on go with
 * every cell that is then chosen. The choice is remembered. Lists come from the server; nothing of them is known here.
 */
import { h, setText } from '../dom.js';
import { withSwitches, workloadOf } from './model.js';
import { configurationText, costsText, workloadText } from './words.js';

/** @typedef {import('../app.js').App} App */
/** @typedef {import('./model.js').Asked} Asked */

const MAX_COUNT = 100_000;

/**
 * @param {App} app @param {import('./model.js').Choices} choices @param {Asked} start what is chosen at first
 * @param {(asked: Asked) => Promise<void>} run rejects with the Problem why not
 */
export function setupView(app, choices, start, run) {
  /** @type {Map<string, number>} */
  const workloads = new Map(start.workloads.map((text) => workloadOf(text, choices)).filter(
    ({ name }) => choices.workloads.some((row) => row.name === name)).map(({ name, count }) => [name, count]));
  const known = new Set(choices.configurations.map((way) => way.id));
  const chosen = new Set(start.configurations.filter((text) => known.has(text.split('+')[0])));
  /** @type {Set<string>} */
  const switches = new Set();
  const refusal = h('p.refusal', { role: 'alert', hidden: true });
  const go = h('button.primary', { type: 'button', id: 'compare-run', onclick: () => void begin() });
  const list = h('ul.compare-chosen', { 'aria-label': app.t('compare.chosen') });
  const cells = h('div.compare-scroll');

  const asked = () => ({
    workloads: choices.workloads.filter(({ name }) => workloads.has(name)).map(({ name }) => `${name}:${workloads.get(name)}`),
    configurations: [...chosen],
    costs: charged.value,
  });
  const begin = async () => {
    refusal.hidden = true;
    go.disabled = true;
    try {
      app.preferences.set('compare.workloads', asked().workloads.join(','));
      app.preferences.set('compare.configurations', asked().configurations.join(','));
      await run(asked());
    } catch (error) {
      setText(refusal, app.problemText(error));
      refusal.hidden = false;
    }
    count();
  };
  const count = () => {
    const runs = workloads.size * chosen.size;
    go.disabled = runs === 0;
    setText(go, app.t('compare.run', { n: runs }));
  };
  const show = () => {
    cells.replaceChildren(matrix());
    list.replaceChildren(...[...chosen].map((text) => h('li', null, h('button.chip', {
      type: 'button', 'aria-label': app.t('compare.unchoose', { name: configurationText(app, text) }),
      onclick: () => { chosen.delete(text); show(); },
    }, configurationText(app, text), h('span', { 'aria-hidden': true }, '×')))));
    if (chosen.size === 0) list.append(h('li.dim', null, app.t('compare.none-chosen')));
    count();
  };

  const matrix = () => {
    const columns = choices.techniques.filter((technique) => choices.configurations.some((way) => way.technique === technique));
    const stacks = [...new Set(choices.configurations.map((way) => way.stack))];
    /** @param {string} stack @param {string | null} technique @param {number} width */
    const cell = (stack, technique, width) => {
      const way = choices.configurations.find((row) => row.stack === stack && row.technique === technique);
      if (!way) return h('td', null, h('span.dim', { title: app.t('compare.impossible') }, '–'));
      const text = withSwitches(way, switches, choices);
      return h('td', { colspan: width }, h('button.chip', {
        type: 'button', 'aria-pressed': chosen.has(text), 'aria-label': configurationText(app, text), dataset: { configuration: text },
        onclick: () => {
          if (!chosen.delete(text)) chosen.add(text);
          show();
          /** @type {HTMLElement | null} */ (cells.querySelector(`[data-configuration="${CSS.escape(text)}"]`))?.focus();
        },
      }, technique === null ? app.t('compare.the-machine') : app.t(chosen.has(text) ? 'compare.chosen-mark' : 'compare.choose')));
    };
    return h('table.compare-matrix', null, h('caption.visually-hidden', null, app.t('compare.configurations')),
      h('thead', null, h('tr', null, h('td'), columns.map((technique) => h('th', { scope: 'col' }, app.t(`technique.${technique}`))))),
      h('tbody', null, stacks.map((stack) => {
        const without = choices.configurations.some((way) => way.stack === stack && way.technique === null);
        return h('tr', null, h('th', { scope: 'row' }, app.t(`stack.${stack}`)),
          without ? cell(stack, null, columns.length) : columns.map((technique) => cell(stack, technique, 1)));
      })));
  };

  const works = h('div.compare-workloads', { role: 'group', 'aria-label': app.t('compare.workloads') }, choices.workloads.map((row) => {
    const times = h('input', {
      type: 'number', min: 1, max: MAX_COUNT, value: workloads.get(row.name) ?? row.count,
      'aria-label': app.t('compare.times', { name: workloadText(app, row.name) }),
      onchange: () => {
        times.value = String(Math.min(MAX_COUNT, Math.max(1, Math.round(Number(times.value)) || row.count)));
        if (workloads.has(row.name)) workloads.set(row.name, Number(times.value));
      },
    });
    const chip = h('button.chip', {
      type: 'button', 'aria-pressed': workloads.has(row.name), dataset: { workload: row.name }, title: app.t(`workload.${row.name}.what`),
      onclick: () => {
        if (!workloads.delete(row.name)) workloads.set(row.name, Number(times.value));
        chip.setAttribute('aria-pressed', String(workloads.has(row.name)));
        count();
      },
    }, workloadText(app, row.name));
    return h('div.compare-workload', null, chip, h('span', { 'aria-hidden': true }, '×'), times,
      h('small', null, app.t(`workload.${row.name}.what`)));
  }));

  const hardware = choices.switches.map((row) => {
    const name = app.t(`switch.${row.id}`);
    const chip = h('button.chip', {
      type: 'button', 'aria-pressed': false, dataset: { switch: row.id },
      onclick: () => {
        if (!switches.delete(row.id)) switches.add(row.id);
        chip.setAttribute('aria-pressed', String(switches.has(row.id)));
        show();
      },
    }, name);
    return chip;
  });

  const tables = [...new Set([choices.own_costs, ...choices.profiles])];
  const wanted = start.costs && !tables.includes(start.costs) ? [start.costs, ...tables] : tables;
  const charged = h('select', { id: 'compare-costs' }, wanted.map((text) => h('option', { value: text, selected: text === start.costs }, costsText(app, text))));

  show();
  return h('div.compare-setup', null,
    h('p.dim', null, app.t('compare.explained')),
    h('h3', null, app.t('compare.workloads')), works,
    h('h3', null, app.t('compare.configurations')), cells,
    hardware.length ? h('div.compare-switches', { role: 'group', 'aria-label': app.t('compare.switches') },
      h('span.dim', null, app.t('compare.switches')), hardware) : null,
    h('div.compare-costs', null, h('label', { for: charged.id }, app.t('compare.costs-table')), charged),
    h('h3', null, app.t('compare.chosen')), list, refusal,
    h('div.buttons', null, go));
}

/** What was chosen last, or else what is usual. @param {App} app @param {import('./model.js').Choices} choices @returns {Asked} */
export function lastChoice(app, choices) {
  const [workloads, configurations] = ['workloads', 'configurations'].map(
    (name) => app.preferences.get(`compare.${name}`, '').split(',').filter(Boolean));
  return {
    workloads: workloads.length ? workloads : choices.usual.workloads,
    configurations: configurations.length ? configurations : choices.usual.configurations,
  };
}
