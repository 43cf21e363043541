/** Puts a lab's page together: state, connection, canvas, chrome and panels. Nothing else knows all of them. */
import { Actions } from './actions.js';
import { App } from './app.js';
import { commandPalette, gdbDialog, keysDialog, remove, renameDialog } from './chrome/dialogs.js';
import { Dock } from './chrome/dock.js';
import { Inspector } from './chrome/inspector.js';
import { Objects } from './chrome/objects.js';
import { Overlay } from './chrome/overlay.js';
import { Palette } from './chrome/palette.js';
import { restack } from './chrome/restack.js';
import { Splitters } from './chrome/splitters.js';
import { Stage } from './chrome/stage.js';
import { differenceDialog } from './chrome/difference.js';
import { systemsDialog } from './chrome/systems.js';
import { announcer, toasts } from './chrome/toasts.js';
import { TopBar } from './chrome/topbar.js';
import { askedBy } from './compare/model.js';
import { compareDialog } from './compare/screen.js';
import { byId, translate } from './dom.js';
import { I18n } from './i18n.js';
import { PANELS, openEditor } from './panels/index.js';
import { sessionOf } from './panels/session.js';
import { active, verdict } from './migrations.js';
import { Preferences, storage } from './preferences.js';
import { CanvasView } from './render/canvas.js';
import { Scheduler } from './render/scheduler.js';
import { Link } from './socket.js';
import { Store } from './store.js';
import { Theme } from './theme.js';
import { Carry } from './tools/carry.js';

const { lab = '', csrf = '', language = 'en' } = document.body.dataset;
const store = new Store();
const i18n = new I18n(language === 'ko' ? 'ko' : 'en');
const preferences = new Preferences(storage());
const scheduler = new Scheduler((callback) => requestAnimationFrame(callback));
const link = new Link(lab, store);
const app = new App({
  lab, csrf, store, i18n, preferences,
  request: (event, payload) => link.request(event, payload),
  toast: toasts(() => i18n.t('dialog.close')),
  announce: announcer(),
});
sessionOf(app);

const theme = new Theme(preferences, (shown) => {
  app.theme = shown;
  app.emit('theme', shown);
});
const carry = new Carry(app);
const actions = new Actions(app, PANELS.map((panel) => ({
  id: `panel-${panel.id}`, titleKey: panel.titleKey, run: () => app.openPanel(panel.id),
})));
app.actions = actions;
/** @type {CanvasView} */
const view = new CanvasView(app, scheduler, carry, byId('canvas'));
const splitters = new Splitters(app);
const dock = new Dock(app, scheduler, PANELS);
const palette = new Palette(app, carry);
const objects = new Objects(app, scheduler, carry);

/** @type {import('./app.js').Parts} */
const parts = {
  openPanel: (panel) => {
    if (splitters.folded('dock')) splitters.toggle('dock');
    dock.show(panel);
  },
  openEditor: (options) => openEditor(app, options),
  zoom: (factor) => view.zoom(factor),
  fit: () => view.fit(),
  showLevel: (level) => view.showLevel(level),
  openKeys: () => keysDialog(app),
  openCommands: () => commandPalette(app),
  upload: () => palette.openFilePicker(),
  hostAt: (x, y) => {
    const { left, top, right, bottom } = byId('canvas').getBoundingClientRect();
    return x >= left && x < right && y >= top && y < bottom ? view.hit(x - left, y - top)?.host ?? null : null;
  },
  openSystems: () => systemsDialog(app),
  openCompare: (asked = null, atOnce = true) => compareDialog(app, asked, atOnce),
  showGdb: (guest, address, port) => gdbDialog(app, guest, address, port),
  showDifference: (image) => void differenceDialog(app, image),
  renameLab: () => topBar.rename(),
  rename: (selection) => renameDialog(app, selection),
  remove: (selection) => remove(app, selection),
  restack: (host, wanted) => restack(app, host, wanted),
  move: (guest) => {
    byId('canvas').focus();
    carry.begin({ kind: 'guest', id: guest }, 'keyboard');
  },
  toggle: (part) => (part === 'objects' ? objects.toggle() : splitters.toggle(part)),
  setLanguage: (next) => {
    document.cookie = `language=${next}; path=/; max-age=31536000; samesite=lax`;
    document.documentElement.lang = next;
    i18n.setLanguage(next);
    translate(document, i18n);
    app.emit('language', next);
  },
  setTheme: (choice) => theme.choose(choice),
  themeChoice: () => theme.choice,
  colour: (name) => theme.colour(name),
};
app.parts = parts;
const topBar = new TopBar(app, scheduler);
new Inspector(app, scheduler);
const overlay = new Overlay(app, scheduler, carry, view);
new Stage(app, view, carry, overlay);
translate(document, i18n);

let shown = false;
store.on('keyframe', () => {
  if (shown) return;
  shown = true;
  overlay.build();
  view.fit(true);
  dock.start();
  const [guest] = store.document?.guests ?? [];
  if (guest && store.document?.guests.length === 1) app.select({ kind: 'guest', id: guest.id });
  document.body.dataset.ready = 'true';
  const asked = askedBy(location.search);
  if (asked) {
    history.replaceState(null, '', location.pathname);
    parts.openCompare(asked);
  }
});
store.on('migration', (row) => {
  if (active(row)) return;
  const text = verdict(app, row);
  app.toast({ text, level: row.phase === 'failed' ? 'error' : 'info' });
  app.announce(text);
});
store.on('notice', (notice) => {
  const name = notice.params.guest;
  const known = notice.key === 'guest-failed' ? `failure.${store.guests.get(notice.guest)?.failure?.key}` : '';
  const reason = i18n.has(known) ? i18n.t(known, notice.params) : '';
  const level = notice.level === 'error' ? 'error' : notice.level === 'warning' ? 'warning' : 'info';
  if (i18n.has(`notice.${notice.key}`)) app.toast({ text: i18n.t(`notice.${notice.key}`, { ...notice.params, name, reason }), level });
});
document.addEventListener('keydown', (event) => {
  if (event.defaultPrevented || event.isComposing) return;
  const target = event.target instanceof HTMLElement ? event.target : null;
  const typing = target?.closest('input, textarea, select, [contenteditable="true"], dialog');
  if (typing && !((event.ctrlKey || event.metaKey) && event.code === 'KeyK')) return;
  if (actions.key(event)) event.preventDefault();
});
setInterval(() => store.silence(performance.now()), 500);
link.start({
  connection: (connection) => app.setConnection(connection),
  presence: (clients) => {
    app.clients = clients;
    app.emit('presence', clients);
  },
  progress: (fraction) => {
    app.progress = fraction;
    app.emit('busy', app.busy);
  },
  fetch: (state) => app.emit('fetch', state),
  comparison: (told) => app.emit('comparison', told),
  refused: (problem) => {
    app.refusal = problem;
    app.setConnection('refused');
  },
  notice: (notice) => {
    const level = notice.level === 'error' ? 'error' : notice.level === 'warning' ? 'warning' : 'info';
    if (i18n.has(`notice.${notice.key}`)) app.toast({ text: i18n.t(`notice.${notice.key}`, notice.params), level });
  },
});
