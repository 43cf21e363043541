/**
 * What Ringside takes from CodeMirror 6. CodeMirror is published as many packages that import each other by bare
 * name, which a browser resolves only with an import map, and the content security policy allows none; so this one
 * library is bundled (by ../build.mjs, into codemirror.js beside this file).
 *
 * Highlighting is by CSS class (`tok-keyword`, `tok-comment`, ... from `classHighlighter`), so that both themes are
 * plain style sheets.
 */
export { basicSetup } from 'codemirror';
export {
  EditorState, StateField, StateEffect, Compartment, RangeSet, RangeSetBuilder, Prec, Annotation, Transaction,
} from '@codemirror/state';
export {
  EditorView, Decoration, GutterMarker, ViewPlugin, WidgetType, gutter, hoverTooltip, keymap, lineNumbers,
  drawSelection, highlightActiveLine, placeholder,
} from '@codemirror/view';
export { StreamLanguage, syntaxHighlighting, HighlightStyle, foldGutter, indentUnit } from '@codemirror/language';
export { defaultKeymap, history, historyKeymap, indentWithTab } from '@codemirror/commands';
export { lintGutter, linter, setDiagnostics, forEachDiagnostic, nextDiagnostic } from '@codemirror/lint';
export { classHighlighter, tags } from '@lezer/highlight';
