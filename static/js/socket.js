/**
 * The connection to the server: joins the lab, keeps the store fed, acknowledges ticks, comes back after a break.
 * A request waits for its acknowledgement and rejects with ProblemError; one that was sent into a broken connection is
 * refused, never repeated (the server may have carried it out).
 */
import { io } from '../vendor/socket.io/socket.io.js';
import { parser } from './msgpack.js';
import { ProblemError } from './app.js';
import { PROTOCOL } from './protocol.js';

/** The server wants every fourth tick acknowledged. */
const ACKNOWLEDGE_EVERY = 4;
const REQUEST_TIMEOUT_MS = 60_000;

/**
 * @typedef {object} Listener
 * @property {(connection: import('./app.js').Connection) => void} connection
 * @property {(clients: number) => void} presence
 * @property {(fraction: number) => void} progress of a step or seek that takes long, 0..1
 * @property {(state: import('./protocol.js').Fetch) => void} fetch of Debian by the server, whoever asked for it
 * @property {(told: import('./protocol.js').Comparing) => void} comparison of this lab
 * @property {(problem: import('./protocol.js').Problem) => void} refused the lab cannot be joined
 * @property {(notice: {level: string, key: string, params: import('./app.js').Params}) => void} notice of the whole lab
 */

export class Link {
  /** @param {string} lab @param {import('./store.js').Store} store */
  constructor(lab, store) {
    this.lab = lab;
    this.store = store;
    this.socket = io('/', {
      parser, transports: ['websocket'], autoConnect: false, reconnectionDelay: 400, reconnectionDelayMax: 4000,
    });
  }

  /** Connect, and stay connected. @param {Listener} listener */
  start(listener) {
    const { socket, store } = this;
    /** @type {Listener} */
    this.listener = listener;
    socket.on('connect', () => void this.join());
    socket.on('disconnect', () => { if (socket.active) listener.connection('reconnecting'); });
    socket.io.on('reconnect_attempt', () => listener.connection('reconnecting'));
    socket.on('tick', (tick) => {
      store.tick(tick, performance.now());
      if (tick.n % ACKNOWLEDGE_EVERY === 0) socket.emit('ack', { tick: tick.n });
    });
    socket.on('document', ({ document, revision }) => store.setDocument(document, revision));
    socket.on('keyframe', ({ keyframe, revision, tick }) => {
      store.keyframe(keyframe, revision, performance.now());
      socket.emit('ack', { tick });
    });
    socket.on('presence', ({ clients }) => listener.presence(clients));
    socket.on('progress', ({ fraction }) => listener.progress(fraction));
    socket.on('fetch', (state) => listener.fetch(state));
    socket.on('comparison', (told) => listener.comparison(told));
    socket.on('notice', (notice) => listener.notice(notice));
    socket.connect();
  }

  async join() {
    /** @type {any} */
    const answer = await this.call('join', { lab: this.lab, protocol: PROTOCOL });
    if (!answer.ok) {
      this.socket.disconnect();
      this.listener?.refused(answer.error);
      return;
    }
    this.store.keyframe(answer.keyframe, answer.revision, performance.now());
    this.socket.emit('ack', { tick: answer.tick });
    this.listener?.presence(answer.clients);
    this.listener?.connection('live');
  }

  /**
   * @param {string} event @param {object} payload
   * @returns {Promise<any>} the acknowledgement, whatever it says
   */
  call(event, payload) {
    return new Promise((resolve) => {
      this.socket.timeout(REQUEST_TIMEOUT_MS).emit(event, payload, (/** @type {Error | null} */ late, /** @type {any} */ answer) => {
        resolve(late ? { ok: false, error: { key: 'no-answer', message: 'The server did not answer.' } } : answer);
      });
    });
  }

  /**
   * @param {'command' | 'query'} event @param {object} payload
   * @returns {Promise<any>} the acknowledgement of a success; rejects with ProblemError
   */
  async request(event, payload) {
    if (!this.socket.connected) throw new ProblemError({ key: 'not-connected', message: 'There is no connection to the server.' });
    const answer = await this.call(event, payload);
    if (!answer.ok) throw new ProblemError(answer.error);
    return answer;
  }
}
