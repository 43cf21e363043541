/** Puts a lab's page together: state, connection, canvas, chrome and panels. Nothing else knows all of them. */
import { Actions } from './actions.js';
import { App } from './app.js';
import { Dock } from './chrome/dock.js';
import { I18n } from './i18n.js';
import { PANELS } from './panels/index.js';
import { Preferences } from './preferences.js';
import { Scheduler } from './render/scheduler.js';
import { Link } from './socket.js';
import { Store } from './store.js';

const { lab = '', csrf = '', language = 'en' } = document.body.dataset;
const store = new Store();
const link = new Link(lab, store, {
  connection: (connection) => app.setConnection(connection),
  presence: (clients) => { app.clients = clients; app.emit('presence', clients); },
  refused: () => app.setConnection('refused'),
  notice: () => undefined,
});
const app = new App({
  lab, csrf, store,
  i18n: new I18n(language === 'ko' ? 'ko' : 'en'),
  preferences: new Preferences(window.localStorage),
  request: (event, payload) => link.request(event, payload),
  toast: () => undefined,
  announce: () => undefined,
});
const scheduler = new Scheduler((callback) => requestAnimationFrame(callback));
app.actions = new Actions(app);
const dock = new Dock(app, scheduler, PANELS);
store.on('keyframe', () => { if (!dock.shown) dock.start(); });
