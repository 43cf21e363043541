/**
 * What several panels are made of: work that happens at most once a frame, the picker of guests, choices, buttons, and the
 * line that stands in for a panel's content while there is none.
 * @typedef {import('../app.js').App} App
 */
import { h, icon, setAttribute, setText } from '../dom.js';
import { DISPOSITION_MARKS, STATE_MARKS } from '../marks.js';

/** Calls `work` in the next frame, however often it is asked to. @param {() => void} work */
export function onceAFrame(work) {
  let asked = 0;
  return {
    request() {
      if (asked) return;
      asked = requestAnimationFrame(() => {
        asked = 0;
        work();
      });
    },
    cancel() {
      if (asked) cancelAnimationFrame(asked);
      asked = 0;
    },
  };
}

/** Collects what undoes a mount. */
export class Undoing {
  constructor() {
    /** @type {(() => unknown)[]} */
    this.steps = [];
  }

  /** @param {...() => unknown} steps */
  add(...steps) {
    this.steps.push(...steps);
  }

  run() {
    for (const step of this.steps.splice(0)) step();
  }
}

/**
 * A labelled choice. `set` replaces the options and the choice and touches the DOM only on a difference.
 * @param {string} label
 * @param {(value: string) => void} chosen
 * @param {boolean} [hiddenLabel]
 */
export function choice(label, chosen, hiddenLabel = false) {
  const select = h('select', { 'aria-label': hiddenLabel ? label : null, onchange: () => chosen(select.value) });
  const element = hiddenLabel ? select : h('label.panel-choice', {}, h('span', {}, label), select);
  let shown = '';
  return {
    element,
    select,
    /** @param {[value: string, text: string][]} options @param {string} value */
    set(options, value) {
      const wanted = JSON.stringify(options);
      if (wanted !== shown) {
        shown = wanted;
        select.replaceChildren(...options.map(([key, text]) => h('option', { value: key }, text)));
      }
      if (select.value !== value) select.value = value;
    },
  };
}

/** The guest that the dock is about, as a choice; choosing selects the guest everywhere. @param {App} app */
export function guestPicker(app) {
  const picker = choice(app.t('panel.guest'), (value) => app.select({ kind: 'guest', id: Number(value) }));
  return {
    ...picker,
    update() {
      const guests = app.store.document?.guests ?? [];
      picker.set(guests.map((guest) => [String(guest.id), guest.name]), String(app.guest ?? ''));
      picker.element.hidden = guests.length === 0;
    },
  };
}

/** The vCPU that a panel is about; hidden while there is only one. @param {App} app @param {(vcpu: number) => void} chosen */
export function vcpuPicker(app, chosen) {
  const picker = choice(app.t('panel.vcpu'), (value) => chosen(Number(value)));
  return {
    ...picker,
    /** @param {number} count @param {number} vcpu */
    update(count, vcpu) {
      picker.set(Array.from({ length: count }, (_, index) => [String(index), String(index)]), String(vcpu));
      picker.element.hidden = count < 2;
    },
  };
}

/** @param {string} text @param {() => void} press @param {Record<string, unknown>} [attributes] */
export const button = (text, press, attributes = {}) => h('button', { type: 'button', ...attributes, onclick: press }, text);

/** What a panel shows instead of its content: nothing yet, loading, or an error with a way to try again. @param {App} app */
export function stateLine(app) {
  const text = h('span');
  let again = () => {};
  const retry = button(app.t('panel.retry'), () => again());
  const element = h('div.panel-state', { role: 'status', hidden: true }, text, retry);
  return {
    element,
    /** @param {string | null} message null hides it @param {(() => void) | null} [tryAgain] */
    show(message, tryAgain = null) {
      if (element.hidden !== (message === null)) element.hidden = message === null;
      setText(text, message ?? '');
      if (retry.hidden !== (tryAgain === null)) retry.hidden = tryAgain === null;
      again = tryAgain ?? again;
    },
  };
}

/**
 * The word for a disposition with its mark, in its colour.
 * @param {'span' | 'button'} tag @param {Record<string, unknown>} [attributes]
 */
export function pill(tag, attributes = {}) {
  const mark = icon('');
  const word = h('span');
  const element = h(`${tag}.pill`, attributes, mark, word);
  return {
    element,
    /** @param {string} disposition @param {string} text */
    set(disposition, text) {
      setAttribute(element, 'data-disposition', disposition);
      setAttribute(/** @type {Element} */ (mark.firstElementChild), 'd', DISPOSITION_MARKS[disposition]);
      setText(word, text);
    },
  };
}

/** The mark of a guest's state, in its colour. */
export function stateMark() {
  const mark = icon('', 'icon state-mark');
  return {
    element: mark,
    /** @param {string} state a row of STATE_MARKS */
    set(state) {
      setAttribute(mark, 'data-state', state);
      setAttribute(/** @type {Element} */ (mark.firstElementChild), 'd', STATE_MARKS[state]);
    },
  };
}

/** A CSS custom property of the theme in force. @param {Element} element @param {string} name */
export const themeColour = (element, name) => getComputedStyle(element).getPropertyValue(name).trim();
