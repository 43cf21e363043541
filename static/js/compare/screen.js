/**
 * The Compare screen: the lab's comparisons at the side, one of them or a new one beside. What is shown comes from the server and
 * follows what it tells of every comparison; what a reader sets (tab, order, units) stays while the screen is open.
 */
import { dialog } from '../chrome/dialogs.js';
import { h, setText } from '../dom.js';
import { ask } from '../http.js';
import { freshView, resultView } from './result.js';
import { lastChoice, setupView } from './setup.js';
import { configurationText, workloadText } from './words.js';

/** @typedef {import('../app.js').App} App */
/** @typedef {import('./model.js').Asked} Asked */

const REFRESH_MS = 250;

/**
 * @param {App} app @param {Asked | null} asked what is chosen; without configurations, the usual ones
 * @param {boolean} [atOnce] carry out what is asked
 */
export function compareDialog(app, asked, atOnce = true) {
  const side = h('nav.compare-side', { 'aria-label': app.t('compare.all') });
  const main = h('div.compare-main', { tabindex: -1 });
  const refusal = h('p.refusal', { role: 'alert', hidden: true });
  const element = dialog(app, app.t('compare.title'), h('div.compare', null, side, h('div.compare-right', null, refusal, main)));
  element.classList.add('compare-dialog');
  const folder = `/labs/${app.lab}/comparisons`;
  /** @type {import('./model.js').Choices | null} */
  let choices = null;
  /** @type {import('./model.js').Summary[]} */
  let all = [];
  /** @type {import('./model.js').Comparison | null} */
  let open = null;
  let view = freshView();
  /** @type {Asked | null} */
  let start = asked;
  let timer = 0;

  /** @param {unknown} error */
  const complain = (error) => {
    setText(refusal, app.problemText(error));
    refusal.hidden = false;
  };
  /** @param {() => Promise<unknown>} work */
  const trying = async (work) => {
    refusal.hidden = true;
    try {
      await work();
    } catch (error) {
      complain(error);
    }
  };

  const showSide = () => {
    const entries = [...all].reverse().map((one) => h('li', null, h('button.quiet', {
      type: 'button', 'aria-current': open?.id === one.id ? 'true' : null, dataset: { comparison: one.id },
      onclick: () => void trying(() => show(one.id)),
    }, h('strong', null, one.workloads.map((text) => workloadText(app, text.split(':')[0])).join(', ')),
    h('small', null, one.done < one.total
      ? app.t('compare.done', { done: one.done, total: one.total })
      : app.t('compare.summary', { n: one.configurations.length, when: when(one.created) })))));
    side.replaceChildren(h('button', { type: 'button', dataset: { do: 'new' }, 'aria-current': open ? null : 'true', onclick: showSetup }, app.t('compare.new')),
      h('ul', null, entries), ...(entries.length ? [] : [h('p.dim', null, app.t('compare.empty'))]));
  };
  /** @param {number | null} seconds */
  const when = (seconds) => new Intl.DateTimeFormat(app.i18n.language, { dateStyle: 'short', timeStyle: 'short' }).format(new Date((seconds ?? 0) * 1000));

  const showSetup = () => {
    if (!choices) return;
    open = null;
    main.replaceChildren(setupView(app, choices, start ?? lastChoice(app, choices), begin));
    start = null;
    showSide();
  };
  const showResult = () => {
    if (!open || !choices) return;
    const one = open;
    const focus = main.contains(document.activeElement) ? focusKey(document.activeElement) : null;
    const { scrollTop } = main;
    main.replaceChildren(h('h3', null, title(one)), resultView(app, one, choices, view, {
      again: () => void trying(() => begin({ ...one, costs: one.costs_text })),
      cancel: () => void trying(() => drop(one.id)),
      remove: () => void trying(() => drop(one.id)),
      changed: showResult,
    }));
    main.scrollTop = scrollTop;
    if (focus) /** @type {HTMLElement | null} */ (main.querySelector(focus))?.focus();
    showSide();
  };
  /** @param {import('./model.js').Comparison} one */
  const title = (one) => app.t('compare.of', {
    workloads: one.workloads.map((text) => workloadText(app, text.split(':')[0])).join(', '),
    configurations: one.configurations.map((text) => configurationText(app, text)).join(', '),
  });
  /** @param {string} id */
  const show = async (id) => {
    const answer = await ask(app, `${folder}/${id}`);
    if (open?.id !== id) view = freshView();
    open = answer;
    showResult();
  };
  /** Cancel or delete it. Nothing asks for it any more meanwhile. @param {string} id */
  const drop = async (id) => {
    open = null;
    window.clearTimeout(timer);
    timer = 0;
    await ask(app, `${folder}/${id}`, 'DELETE');
    await load();
    showSetup();
  };
  const load = async () => {
    const answer = await ask(app, folder);
    choices = answer.choices;
    all = answer.comparisons;
    showSide();
  };
  /** @param {Asked} wanted */
  const begin = async ({ workloads, configurations, costs = '' }) => {
    const { id } = await ask(app, folder, 'POST', { workloads, configurations, costs });
    await load();
    await show(id);
    app.announce(app.t('compare.began'));
  };
  /** @param {import('../protocol.js').Comparing} told */
  const heard = (told) => {
    const known = all.find((one) => one.id === told.id);
    if (known) known.done = told.done;
    if (timer) return;
    timer = window.setTimeout(() => {
      timer = 0;
      void trying(async () => {
        await load();
        if (open && all.some((one) => one.id === open?.id)) {
          if (open.done < open.total) await show(open.id);
        } else if (open) showSetup();
      });
    }, REFRESH_MS);
  };
  element.addEventListener('close', app.on('comparison', heard));
  element.addEventListener('close', () => window.clearTimeout(timer));
  main.replaceChildren(h('p.dim', { role: 'status' }, app.t('panel.loading')));
  main.focus();
  void trying(async () => {
    await load();
    if (asked && !atOnce) {
      if (asked.configurations.length === 0) start = { ...asked, configurations: choices?.usual.configurations ?? [] };
      showSetup();
      return;
    }
    if (!asked) {
      const running = all.find((one) => one.done < one.total);
      if (running) await show(running.id);
      else showSetup();
      return;
    }
    try {
      await begin(asked);
    } catch (error) {
      showSetup();
      throw error;
    }
  });
}

/** How to find the element again that has the focus, after its part was made anew. @param {Element | null} element */
function focusKey(element) {
  if (!(element instanceof HTMLElement)) return null;
  const [name, value] = Object.entries(element.dataset)[0] ?? [];
  return name ? `[data-${name}="${CSS.escape(value ?? '')}"]` : element instanceof HTMLSelectElement ? `[aria-label="${CSS.escape(element.ariaLabel ?? '')}"]` : null;
}
