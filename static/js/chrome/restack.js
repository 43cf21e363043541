/**
 * Giving a host another stack, technique or switches: by dropping one on it, or with the controls in the inspector. A host with
 * guests is asked about first: they come along, going on where they were, or they are switched off.
 */
import { h, setText } from '../dom.js';
import { STACKS, TECHNIQUES, stackText } from '../stacks.js';
import { unfit } from '../tools/fittings.js';
import { dialog } from './dialogs.js';

/** @typedef {import('../app.js').App} App */
/** @typedef {{stack: string, technique?: string | null, switches?: string[]}} Wanted technique null: the stack's own */

/** @param {App} app @param {number} host @param {Wanted} wanted @returns {Promise<boolean>} was it done? */
export async function restack(app, host, wanted) {
  const row = app.store.host(host);
  if (!row) return false;
  const other = unfit(app, row, wanted);
  if (other) {
    app.toast({ text: other, level: 'error' });
    return false;
  }
  const guests = app.store.guestsOf(host).length === 0 ? null : await ask(app, row, wanted);
  if (guests === undefined) return false;
  const done = (await app.attempt({ type: 'host.stack', host, ...wanted, guests })) !== undefined;
  if (done) app.announce(app.t('announce.stack-changed', { host: row.name, name: stackText(app, becomes(app, wanted)) }));
  if (done && row.stack !== wanted.stack) await shown(app, host, wanted.stack);
  return done;
}

/** What the host will be: a technique that is not named is the stack's own. @param {App} app @param {Wanted} wanted */
const becomes = (app, { stack, technique, switches }) => ({ stack, technique: technique ?? app.store.schema.stacks[stack]?.techniques[0] ?? null, switches });

/** Its bands are others now: show them. @param {App} app @param {number} host @param {string} stack */
async function shown(app, host, stack) {
  if (app.store.host(host)?.stack !== stack) {
    await new Promise((resolve) => {
      const stop = app.store.on('document', () => {
        stop();
        resolve(undefined);
      });
    });
  }
  app.page.showLevel('stack');
}

/**
 * What becomes of its guests? @param {App} app @param {import('../protocol.js').Host} host @param {Wanted} wanted
 * @returns {Promise<'carry' | 'stop' | undefined>} undefined: it stays as it is
 */
function ask(app, host, wanted) {
  return new Promise((resolve) => {
    /** @type {'carry' | 'stop' | undefined} */
    let answer;
    /** @param {'carry' | 'stop'} how @param {string} className */
    const button = (how, className) => h('button', {
      type: 'button', class: className, dataset: { guests: how }, onclick: () => { answer = how; element.close(); },
    }, app.t(`restack.${how}`));
    const carries = (host.technique === null) === (wanted.stack === 'bare-metal');
    const element = dialog(app, app.t('restack.title', { host: host.name, stack: stackText(app, becomes(app, wanted)) }),
      h('p', null, app.t('restack.question', { n: app.store.guestsOf(host.id).length })),
      h('p', null, app.t(carries ? 'restack.carry.detail' : 'restack.carry.not')),
      h('div.buttons', null, h('button', { type: 'button', onclick: () => element.close() }, app.t('dialog.cancel')),
        button('stop', ''), carries ? button('carry', 'primary') : null));
    element.addEventListener('close', () => resolve(answer));
    /** @type {HTMLElement | null} */ (element.querySelector('button.primary'))?.focus();
  });
}

/**
 * The controls for a host's stack, technique, switches and own load; `update` shows a load that somebody else has changed.
 * @param {App} app @param {import('../protocol.js').Host} host
 */
export function stackControls(app, host) {
  const { stacks, switches, generations } = app.store.schema;
  const of = new Set(generations.flat());
  const generation = generations.findIndex((names) => [...of].every((name) => names.includes(name) === host.switches.includes(name)));
  const other = host.switches.filter((name) => !of.has(name));
  /**
   * @param {string} action @param {string} label @param {[value: string, text: string][]} options @param {string} value
   * @param {(value: string) => Promise<boolean>} chosen @param {string} [detail]
   */
  const picker = (action, label, options, value, chosen, detail) => {
    const select = h('select', {
      dataset: { action }, 'aria-label': label, onchange: async () => { if (!(await chosen(select.value))) select.value = value; },
    }, ...options.map(([key, text]) => h('option', { value: key, selected: key === value }, text)));
    return h('label.control', { title: detail }, h('span', null, label), select);
  };
  const possible = stacks[host.stack]?.techniques ?? [];
  const fitting = Object.entries(switches).filter(([, { stacks: on, techniques: by }]) => on.includes(host.stack)
    && (host.technique === null || by.includes(host.technique)));
  const load = stacks[host.stack]?.type === 2 ? loadControl(app, host) : null;
  const element = h('div.controls', null,
    picker('host-stack', app.t('control.stack'), STACKS.map(({ id }) => [id, app.t(`stack.${id}`)]), host.stack,
      (stack) => restack(app, host.id, { stack })),
    host.technique === null ? null : picker('host-technique', app.t('control.technique'),
      TECHNIQUES.filter(({ id }) => possible.includes(id)).map(({ id }) => [id, app.t(`technique.${id}`)]), host.technique,
      (technique) => restack(app, host.id, { stack: host.stack, technique })),
    host.technique === 'hardware-assist' ? picker('host-generation', app.t('control.generation'), [
      ...generation < 0 ? [/** @type {[string, string]} */ (['-1', app.t('control.generation.mixed')])] : [],
      ...generations.map((_, index) => /** @type {[string, string]} */ ([String(index), app.t(`control.generation.${index}`)])),
    ], String(generation), (chosen) => restack(app, host.id, { stack: host.stack, technique: host.technique, switches: [...other, ...generations[Number(chosen)] ?? []] }),
    app.t('control.generation.detail')) : null,
    ...fitting.map(([id]) => {
      const box = h('input', {
        type: 'checkbox', checked: host.switches.includes(id), dataset: { action: `host-switch-${id}` },
        onchange: async () => {
          const wanted = host.switches.filter((other) => other !== id).concat(box.checked ? [id] : []);
          if (!(await restack(app, host.id, { stack: host.stack, technique: host.technique, switches: wanted }))) box.checked = !box.checked;
        },
      });
      return h('label.control.check', { title: app.t(`switch.${id}.detail`) }, box, h('span', null, app.t(`switch.${id}`)));
    }),
    load?.element);
  return { element, update: () => load?.update() };
}

/** @param {App} app @param {import('../protocol.js').Host} host */
function loadControl(app, host) {
  const shown = h('output');
  const now = () => app.store.host(host.id)?.host_load ?? 0;
  const show = () => setText(shown, app.t('control.load.value', { percent: slider.value }));
  const slider = h('input', {
    type: 'range', min: 0, max: 90, step: 10, value: host.host_load, dataset: { action: 'host-load' }, 'aria-label': app.t('control.load'),
    oninput: show,
    onchange: async () => {
      if ((await app.attempt({ type: 'host.load', host: host.id, percent: Number(slider.value) })) === undefined) slider.value = String(now());
    },
  });
  show();
  return {
    element: h('label.control', { title: app.t('control.load.detail') }, h('span', null, app.t('control.load')), slider, shown),
    update() {
      if (document.activeElement === slider) return;
      slider.value = String(now());
      show();
    },
  };
}
