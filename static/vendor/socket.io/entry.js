/**
 * The socket.io client with its msgpack parser, as one ES module: the published msgpack build is a classic script that
 * sets a global, and the published module build speaks JSON only. Built by ../build.mjs into socket.io.js.
 *
 * Bytes: an `ArrayBuffer` is sent as msgpack `bin` (a typed array or DataView is not: it becomes a map of its indices, so
 * send its `.buffer`), and `bin` arrives as an `ArrayBuffer`.
 */
import { io as connect } from 'socket.io-client';
import parser from 'socket.io-msgpack-parser';

/**
 * Open a connection whose packets are msgpack, as the server expects (`SocketIO(serializer="msgpack")`).
 * @param {string} url
 * @param {Partial<import('socket.io-client').ManagerOptions & import('socket.io-client').SocketOptions>} [options]
 * @returns {import('socket.io-client').Socket}
 */
export function io(url, options) {
  return connect(url, { ...options, parser });
}
