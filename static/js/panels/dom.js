/**
 * The panels' small tools for the DOM: an element in one expression, texts that change only when they differ, work that
 * happens at most once a frame, the picker of guests, and a status line. No markup is ever parsed from a string.
 * @typedef {import('../app.js').App} App
 * @typedef {string | Node | null | undefined | false} Child
 */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [attributes] `on` holds listeners, `class` the class, a true/false value sets or leaves out
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'on') {
      for (const [event, listener] of Object.entries(/** @type {Record<string, EventListener>} */ (value))) {
        element.addEventListener(event, listener);
      }
    } else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  for (const child of children) if (child !== null && child !== undefined && child !== false) element.append(child);
  return element;
}

/** @param {Node} node @param {string} text */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {Element} element @param {string} name @param {string | null} value */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

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
    /** @type {(() => void)[]} */
    this.steps = [];
  }

  /** @param {...() => void} steps */
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
  const select = h('select', { 'aria-label': hiddenLabel ? label : null, on: { change: () => chosen(select.value) } });
  const element = hiddenLabel ? select : h('label', { class: 'panel-choice' }, h('span', {}, label), select);
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

/**
 * The guest that the dock is about, as a choice; choosing selects the guest everywhere.
 * @param {App} app
 */
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

/**
 * A button of a panel. @param {string} text @param {() => void} press @param {Record<string, unknown>} [attributes]
 */
export const button = (text, press, attributes = {}) => h('button', { type: 'button', class: 'panel-button', ...attributes, on: { click: press } }, text);

/** What a panel shows instead of its content: nothing yet, loading, or an error with a way to try again. @param {App} app */
export function stateLine(app) {
  const text = h('span');
  const retry = button(app.t('panel.retry'), () => again());
  let again = () => {};
  const element = h('div', { class: 'panel-state', role: 'status', hidden: true }, text, retry);
  return {
    element,
    /** @param {string | null} message null hides it @param {(() => void) | null} [tryAgain] */
    show(message, tryAgain = null) {
      element.hidden = message === null;
      setText(text, message ?? '');
      retry.hidden = tryAgain === null;
      again = tryAgain ?? again;
    },
  };
}

/** A CSS custom property of the theme in force. @param {Element} element @param {string} name */
export const themeColour = (element, name) => getComputedStyle(element).getPropertyValue(name).trim();
