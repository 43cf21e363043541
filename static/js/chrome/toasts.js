/** Messages that come and go: at most four, errors stay longer, each can be closed; pointer or focus on one holds it. */
import { byId, h, icon } from '../dom.js';
import { ICONS } from '../icons.js';

const SHOWN_MS = { info: 5000, warning: 9000, error: 12_000 };
const MOST = 4;

/**
 * @param {() => string} closeText the words for "close", in the language of the moment
 * @returns {(toast: import('../app.js').Toast) => void}
 */
export function toasts(closeText) {
  const root = byId('toasts');
  return ({ text, level = 'info', action }) => {
    const same = [...root.children].find((child) => child instanceof HTMLElement && child.dataset.text === text);
    same?.remove();
    const element = h('div.toast', { dataset: { text, level }, role: level === 'error' ? 'alert' : 'status' },
      h('p', null, text),
      action ? h('button', { type: 'button', onclick: () => { action.run(); element.remove(); } }, action.text) : null,
      h('button.quiet.square', { type: 'button', 'aria-label': closeText(), onclick: () => element.remove() }, icon(ICONS.close)));
    root.append(element);
    while (root.children.length > MOST) root.firstElementChild?.remove();
    let timer = setTimeout(() => element.remove(), SHOWN_MS[level]);
    const hold = () => clearTimeout(timer);
    const release = () => {
      clearTimeout(timer);
      timer = setTimeout(() => element.remove(), SHOWN_MS[level]);
    };
    element.addEventListener('pointerenter', hold);
    element.addEventListener('focusin', hold);
    element.addEventListener('pointerleave', release);
    element.addEventListener('focusout', release);
  };
}

/** Says a sentence once to screen readers. @returns {(text: string) => void} */
export function announcer() {
  const root = byId('announcer');
  return (text) => {
    const line = h('p', null, text);
    root.append(line);
    while (root.children.length > 2) root.firstElementChild?.remove();
    setTimeout(() => line.remove(), 8000);
  };
}
