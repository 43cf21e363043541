/** The theme: the reader's choice or the system's, put on the root element; colours for canvases are read from there. */

/** @typedef {'dark' | 'light' | 'system'} ThemeChoice */

export class Theme {
  /**
   * @param {import('./preferences.js').Preferences} preferences
   * @param {(theme: 'dark' | 'light') => void} onChange
   */
  constructor(preferences, onChange) {
    this.preferences = preferences;
    this.onChange = onChange;
    this.system = matchMedia('(prefers-color-scheme: light)');
    this.system.addEventListener('change', () => this.apply());
    /** @type {Map<string, string>} */
    this.colours = new Map();
    this.apply();
  }

  /** @returns {ThemeChoice} */
  get choice() {
    return /** @type {ThemeChoice} */ (this.preferences.get('theme', 'system'));
  }

  /** @param {ThemeChoice} choice */
  choose(choice) {
    this.preferences.set('theme', choice);
    this.apply();
  }

  /** @returns {'dark' | 'light'} */
  get shown() {
    if (this.choice === 'system') return this.system.matches ? 'light' : 'dark';
    return this.choice;
  }

  apply() {
    document.documentElement.dataset.theme = this.shown;
    this.colours.clear();
    this.onChange(this.shown);
  }

  /** A CSS custom property of the theme. @param {string} name such as "--ink" */
  colour(name) {
    let value = this.colours.get(name);
    if (value === undefined) {
      value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
      this.colours.set(name, value);
    }
    return value;
  }
}
