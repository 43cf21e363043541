export { io } from './entry.js';
export type { Socket } from 'socket.io-client';
