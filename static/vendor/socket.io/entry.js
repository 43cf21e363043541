/**
 * The socket.io client as one ES module, built by ../build.mjs into socket.io.js: the published module build imports its
 * parts by bare name. The page speaks msgpack by giving `io` the parser of static/js/msgpack.js, whose integers are exact.
 */
export { io } from 'socket.io-client';
