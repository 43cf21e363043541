export { Terminal } from '@xterm/xterm';
export type { IDisposable, ITerminalOptions, ITheme } from '@xterm/xterm';
