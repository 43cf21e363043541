/**
 * The Console panel: one terminal per guest, made when first looked at and kept with its screen while the guest exists.
 * Keys typed while a command is under way travel together as the next one, in order. A keyboard user
 * leaves the terminal with Ctrl+Shift+F6, because Tab belongs to the guest.
 * @typedef {import('../app.js').App} App
 */
import { FitAddon } from '../../vendor/xterm/addon-fit.mjs';
import { Terminal } from '../../vendor/xterm/xterm.mjs';
import { h, setAttribute, setText } from '../dom.js';
import { shownState } from '../marks.js';
import { GUEST_STATES } from '../protocol.js';
import { inputCommands } from './console_log.js';
import { button, guestPicker, onceAFrame, stateLine, stateMark, themeColour, Undoing } from './parts.js';
import { sessionOf } from './session.js';

/** Keys of so long travel together, so that fast typing and pasting stay within the server's rate of commands. */
const SEND_EVERY_MS = 50;

/** The theme's colours in a terminal's roles. @param {Element} element @returns {import('../../vendor/xterm/xterm.mjs').ITheme} */
function terminalTheme(element) {
  const colour = (/** @type {string} */ name) => themeColour(element, name);
  return {
    background: colour('--sunken'), foreground: colour('--ink'), cursor: colour('--accent'), cursorAccent: colour('--sunken'),
    selectionBackground: colour('--accent-soft'), black: colour('--line'), brightBlack: colour('--dim'), white: colour('--ink'),
    brightWhite: colour('--ink'), red: colour('--disposition-killed'), brightRed: colour('--disposition-killed'), green: colour('--disposition-hardware'),
    brightGreen: colour('--disposition-hardware'), yellow: colour('--disposition-forwarded'), brightYellow: colour('--disposition-forwarded'),
    blue: colour('--disposition-emulated'), brightBlue: colour('--disposition-emulated'), magenta: colour('--disposition-injected'), brightMagenta: colour('--disposition-injected'),
    cyan: colour('--level-user'), brightCyan: colour('--level-user'),
  };
}

/** One guest's terminal. */
class Screen {
  /** @param {HTMLElement} parent @param {number} guest @param {(bytes: Uint8Array) => void} typed @param {() => void} leave */
  constructor(parent, guest, typed, leave) {
    this.guest = guest;
    this.element = h('div.console-screen', {});
    parent.append(this.element);
    this.terminal = new Terminal({
      cursorBlink: false, scrollback: 4000, fontSize: 12, lineHeight: 1.25, convertEol: true,
      fontFamily: themeColour(parent, '--font-code') || 'monospace', theme: terminalTheme(parent),
    });
    this.fit = new FitAddon();
    this.terminal.loadAddon(this.fit);
    this.terminal.open(this.element);
    const encoder = new TextEncoder();
    this.terminal.onData((text) => typed(encoder.encode(text)));
    this.terminal.onBinary((text) => typed(Uint8Array.from(text, (character) => character.charCodeAt(0))));
    this.terminal.attachCustomKeyEventHandler((event) => {
      if (event.key !== 'F6' || !event.ctrlKey || !event.shiftKey) return true;
      event.preventDefault();
      if (event.type === 'keydown') leave();
      return false;
    });
  }

  /** @param {string} text */
  label(text) {
    if (this.terminal.textarea) setAttribute(this.terminal.textarea, 'aria-label', text);
  }

  resize() {
    if (this.element.clientWidth > 20 && this.element.clientHeight > 20) this.fit.fit();
  }

  destroy() {
    this.terminal.dispose();
    this.element.remove();
  }
}

/** @param {HTMLElement} root @param {App} app @returns {import('../app.js').Panel} */
export function mountConsole(root, app) {
  const { consoles } = sessionOf(app);
  const undo = new Undoing();
  const picker = guestPicker(app);
  const mark = stateMark();
  const status = h('span.console-status', { role: 'status' });
  const mend = button('', () => condition().run());
  const clear = button(app.t('console.clear'), () => screen()?.terminal.clear());
  const hint = h('span.panel-hint', {}, app.t('console.leave'));
  const bar = h('div.panel-bar', {}, picker.element, mark.element, status, mend, h('span.panel-gap', {}), hint, clear);
  const screensElement = h('div.console-screens', {});
  const state = stateLine(app);
  root.append(h('div.dock-panel.console', {}, bar, state.element, screensElement));

  /** @type {Map<number, Screen>} */
  const screens = new Map();
  /** @type {Map<number, Uint8Array[]>} */
  const typed = new Map();
  let sending = false;

  const screen = () => (app.guest === null ? undefined : screens.get(app.guest));

  const flush = onceAFrame(async () => {
    if (sending) return;
    sending = true;
    while (typed.size > 0) {
      const [guest, pieces] = [...typed][0];
      typed.delete(guest);
      for (const data of inputCommands(pieces)) {
        const pause = new Promise((resolve) => setTimeout(resolve, SEND_EVERY_MS));
        const sent = await app.attempt({ type: 'console.input', guest, data });
        await pause;
        if (sent === undefined) break;
      }
    }
    sending = false;
  });

  /** @param {number} guest @param {Uint8Array} bytes */
  function type(guest, bytes) {
    if (bytes.length === 0) return;
    typed.set(guest, [...(typed.get(guest) ?? []), bytes]);
    flush.request();
  }

  function power() {
    const { guest } = app;
    if (guest === null) return;
    const off = GUEST_STATES[app.store.live(guest).state] === 'off';
    void app.attempt({ type: 'guest.power', guest, action: off ? 'on' : 'reset' });
  }

  /** @param {number} guest */
  function open(guest) {
    const known = screens.get(guest);
    if (known) return known;
    const made = new Screen(screensElement, guest, (bytes) => type(guest, bytes), () => {
      picker.select.focus();
      app.announce(app.t('console.left'));
    });
    for (const chunk of consoles.chunks(guest)) made.terminal.write(chunk);
    screens.set(guest, made);
    return made;
  }

  const reader = {
    output: (/** @type {number} */ guest, /** @type {Uint8Array} */ bytes) => screens.get(guest)?.terminal.write(bytes),
    cleared: () => screens.forEach((each) => each.terminal.reset()),
  };
  consoles.readers.add(reader);
  undo.add(() => consoles.readers.delete(reader), () => flush.cancel());
  undo.add(app.on('theme', () => requestAnimationFrame(() => {
    for (const each of screens.values()) each.terminal.options.theme = terminalTheme(screensElement);
  })));
  const sizes = new ResizeObserver(() => screen()?.resize());
  sizes.observe(screensElement);
  undo.add(() => sizes.disconnect(), () => screens.forEach((each) => each.destroy()));

  /** What to say about the guest beside its console, and a button that mends it. @returns {{text: string, action?: string, run: () => void}} */
  function condition() {
    const { guest: id, store } = app;
    const guest = id === null ? undefined : store.guest(id);
    if (!guest) return { text: '', run: power };
    const { name } = guest;
    const live = store.live(guest.id);
    switch (GUEST_STATES[live.state]) {
      case 'off': return { text: app.t('console.off', { guest: name }), action: app.t('console.start'), run: power };
      case 'stopped': return { text: app.t('console.stopped', { guest: name, status: live.exitStatus ?? 0 }), action: app.t('console.restart'), run: power };
      case 'failed': {
        const key = `failure.${live.failure?.key ?? 'guest-failed'}`;
        return { text: app.t('console.dead', { guest: name, reason: app.t(key, live.failure?.params ?? {}) }), action: app.t('console.restart'), run: power };
      }
    }
    if (!store.running) return { text: app.t('console.paused', { guest: name }), run: power };
    const { speed = 'max', unit } = store.document ?? {};
    if (Number(speed)) {
      const run = () => app.actions?.run('speed-max');
      return { text: app.t(unit === 'trap' ? 'console.slow' : 'console.slow.instruction', { speed }), action: app.t('console.hurry'), run };
    }
    return { text: guest.image === 'ringos' && guest.arguments === '' ? app.t('console.try') : '', run: power };
  }

  function update() {
    picker.update();
    for (const [guest, each] of screens) {
      if (app.store.guest(guest)) continue;
      each.destroy();
      screens.delete(guest);
    }
    const guest = app.guest === null ? undefined : app.store.guest(app.guest);
    state.show(guest ? null : app.t('panel.none'));
    bar.hidden = !guest;
    screensElement.hidden = !guest;
    if (!guest) return;
    const current = open(guest.id);
    for (const each of screens.values()) {
      const shown = each === current;
      if (each.element.hidden !== !shown) {
        each.element.hidden = !shown;
        if (shown) each.resize();
      }
    }
    current.label(app.t('console.label', { guest: guest.name }));
    const { text, action = '' } = condition();
    setText(status, text);
    setText(mend, action);
    mend.hidden = action === '';
    mark.set(shownState(GUEST_STATES[app.store.live(guest.id).state], app.store.running));
  }

  undo.add(app.on('guest', update));
  update();
  screen()?.resize();
  return { update, show: () => { update(); screen()?.resize(); }, destroy: () => undo.run() };
}
