/**
 * What lies over the canvas: legend, zoom, state of the connection, the ghost of what is being dragged, tooltips, and the words
 * of an empty or loading lab.
 */
import { byId, h, icon, setText } from '../dom.js';
import { ask } from '../http.js';
import { ICONS } from '../icons.js';
import { actionButton, dispositionMark } from './parts.js';

/** @typedef {import('../app.js').App} App */

/** The lab of the home page. */
const DEMO = 'demo';

export class Overlay {
  /**
   * @param {App} app
   * @param {import('../render/scheduler.js').Scheduler} scheduler
   * @param {import('../tools/carry.js').Carry} carry
   * @param {import('../render/canvas.js').CanvasView} view
   */
  constructor(app, scheduler, carry, view) {
    this.app = app;
    this.carry = carry;
    this.view = view;
    this.root = byId('overlay');
    this.ghost = h('div.ghost', { hidden: true, 'aria-hidden': true });
    this.tip = h('div.tip', { hidden: true, role: 'tooltip' });
    this.tipText = '';
    document.body.append(this.ghost, this.tip);
    this.banner = h('div.banner', { role: 'status', hidden: true });
    this.hint = h('div.hint', { hidden: true });
    this.middle = h('div.middle', { hidden: true });
    /** @type {HTMLElement | null} */
    this.welcome = null;
    /** Has the lab been one host with one guest all the time? Then there is room beside it. */
    this.first = true;
    this.build();
    app.on('language', () => this.build());
    for (const event of /** @type {const} */ (['document', 'keyframe'])) app.store.on(event, () => this.states());
    app.on('connection', () => this.states());
    carry.on('change', () => this.carried());
    scheduler.onDraw(() => this.level());
  }

  build() {
    const { app } = this;
    const dispositions = app.store.reader ? app.store.schema.dispositions : [];
    const legend = h('details.legend', { open: app.preferences.get('legend', true), hidden: dispositions.length === 0 },
      h('summary', null, h('span', null, app.t('legend.title'))),
      h('ul', null, dispositions.map((name) => h('li', { title: app.t(`disposition.${name}.detail`) }, dispositionMark(name), app.t(`disposition.${name}`)))));
    legend.addEventListener('toggle', () => app.preferences.set('legend', legend.open));
    this.levels = (/** @type {const} */ (['datacenter', 'host', 'stack'])).map((level) => ({ level, button: actionButton(app, `level-${level}`) }));
    this.root.replaceChildren(this.banner, this.hint, this.middle, h('div.lower', null, legend,
      h('div.zoom', { role: 'group', 'aria-label': app.t('zoom.label') },
        h('div.segments', null, this.levels.map(({ button }) => button)),
        h('div.segments', null, actionButton(app, 'zoom-out', { icon: 'minus', text: false }), actionButton(app, 'zoom-in', { icon: 'plus', text: false }),
          actionButton(app, 'fit', { icon: 'fit', text: false })),
        actionButton(app, 'toggle-objects', { icon: 'table', text: false }))));
    this.welcome = app.preferences.get('welcomed', false) ? null : this.makeWelcome();
    if (this.welcome) this.root.append(this.welcome);
    this.states();
  }

  /** What moves, for a reader who is here for the first time: beside the one host of a first lab, gone for good when it was read. */
  makeWelcome() {
    const { app } = this;
    const element = h('section.welcome', { 'aria-label': app.t('welcome.title') }, h('strong', null, app.t('welcome.title')), h('p', null, app.t('welcome.text')),
      h('button', {
        type: 'button',
        onclick: () => {
          app.preferences.set('welcomed', true);
          element.remove();
          this.welcome = null;
          byId('canvas').focus();
        },
      }, app.t('welcome.close')));
    return element;
  }

  level() {
    for (const { level, button } of this.levels ?? []) {
      const pressed = String(this.view.camera.level === level);
      if (button.getAttribute('aria-pressed') !== pressed) button.setAttribute('aria-pressed', pressed);
    }
  }

  states() {
    const { app } = this;
    const lab = app.store.document;
    const lost = app.connection === 'reconnecting' && lab;
    this.banner.hidden = !lost;
    if (lab && (lab.hosts.length !== 1 || lab.guests.length !== 1)) this.first = false;
    if (this.welcome) this.welcome.hidden = !lab || !this.first;
    setText(this.banner, lost ? app.t('connection.lost') : '');
    if (app.connection === 'refused') {
      const problem = app.refusal;
      const text = problem ? app.problemText(problem) : '';
      const lost = Boolean(problem?.params?.afresh);
      this.show(app.t('lab.refused'), lost ? `${text} ${app.t('lab.afresh.detail')}` : text,
        lost && h('button.primary', { type: 'button', onclick: () => void this.openAfresh() }, app.t('lab.afresh')),
        h('button', { type: 'button', class: lost ? null : 'primary', onclick: () => location.reload() }, app.t('lab.retry')),
        app.lab !== DEMO && h('a.button', { href: '/' }, app.t('http.home')), h('a.button', { href: '/labs' }, app.t('http.labs')));
    } else if (!lab) this.show(app.t(app.connection === 'connecting' ? 'lab.loading' : 'connection.reconnecting'), app.t('lab.loading.detail'));
    else if (lab.hosts.length === 0) {
      this.show(app.t('lab.empty'), app.t('lab.empty.detail'), h('button.primary', { type: 'button', onclick: () => app.actions?.run('host-create') }, icon(ICONS.host), app.t('do.host-create')));
    } else this.middle.hidden = true;
  }

  /** Have a lab that cannot go on begin again. */
  async openAfresh() {
    try {
      await ask(this.app, `/labs/${this.app.lab}/afresh`, 'POST');
      location.reload();
    } catch (problem) {
      this.app.complain(problem);
    }
  }

  /** @param {string} title @param {string} detail @param {...(Node | false)} buttons */
  show(title, detail, ...buttons) {
    this.middle.hidden = false;
    this.middle.replaceChildren(h('strong', null, title), h('p', null, detail), h('div.buttons', null, ...buttons));
  }

  carried() {
    const { app, carry } = this;
    const { load } = carry;
    document.body.dataset.carrying = load ? load.via : '';
    document.body.dataset.carries = load?.item.kind ?? '';
    document.body.dataset.over = load?.target === 'compare' ? 'compare' : '';
    this.ghost.hidden = load?.via !== 'pointer';
    this.hint.hidden = !load;
    if (!load) return;
    const name = carry.nameOf(load.item);
    const { verdict } = load;
    const said = load.via === 'keyboard' && verdict ? `${verdict.title}${verdict.detail ? `: ${verdict.detail}` : ''}` : '';
    const hints = {
      pointer: load.item.kind === 'workload' ? 'hint.pointer-workload' : 'hint.pointer',
      keyboard: load.item.kind === 'host' ? 'hint.keyboard-host' : 'hint.keyboard',
    };
    lines(this.hint, [app.t(hints[load.via], { name }), said], ['span', 'small']);
    this.hint.dataset.fits = String(verdict?.fits ?? '');
    if (load.via !== 'pointer') return;
    this.ghost.style.setProperty('transform', `translate(${load.x + 12}px, ${load.y + 10}px)`);
    this.ghost.dataset.fits = verdict?.fits === null ? 'asking' : verdict ? String(verdict.fits) : 'none';
    lines(this.ghost, [verdict?.title ?? name, verdict?.detail ?? ''], ['strong', 'small']);
  }

  /** @param {{key: string, lines: string[]} | null} tip @param {number} x client @param {number} y client */
  showTip(tip, x, y) {
    this.tip.hidden = !tip;
    if (!tip) return;
    const text = tip.lines.join('\n');
    if (text !== this.tipText) {
      this.tipText = text;
      this.tip.replaceChildren(...tip.lines.map((line, index) => h(index ? 'p' : 'strong', null, line)));
    }
    const { offsetWidth, offsetHeight } = this.tip;
    const left = x + 16 + offsetWidth > window.innerWidth ? x - 12 - offsetWidth : x + 16;
    const top = y + 16 + offsetHeight > window.innerHeight ? y - 12 - offsetHeight : y + 16;
    this.tip.style.setProperty('transform', `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`);
  }
}

/** Fill an element with what there is to say, changed in place. @param {HTMLElement} element @param {string[]} texts empty ones are left out @param {('strong' | 'small' | 'span')[]} tags */
function lines(element, texts, tags) {
  const said = texts.map((text, index) => ({ text, tag: tags[index] })).filter(({ text }) => text);
  if (element.childElementCount !== said.length) element.replaceChildren(...said.map(({ tag }) => h(tag)));
  said.forEach(({ text }, index) => setText(element.children[index], text));
}
