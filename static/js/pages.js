/** The pages around the labs (list, errors, classification): words, language and theme. */
import { h, icon, translate } from './dom.js';
import { I18n } from './i18n.js';
import { ICONS } from './icons.js';
import { Preferences, storage } from './preferences.js';
import { Theme } from './theme.js';

export const i18n = new I18n(document.body.dataset.language === 'ko' ? 'ko' : 'en');
const theme = new Theme(new Preferences(storage()), () => queueMicrotask(render));

/** Also done when the language changes. @type {(() => void)[]} */
export const renderers = [];

function render() {
  translate(document, i18n);
  for (const renderer of renderers) renderer();
  for (const element of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll('[data-t-known]'))) {
    const key = element.dataset.tKnown ?? '';
    if (i18n.has(key)) element.textContent = i18n.t(key, JSON.parse(element.dataset.params ?? '{}'));
  }
  document.querySelector('#choices')?.replaceChildren(
    h('div.segments', { role: 'group', 'aria-label': i18n.t('topbar.language') }, (/** @type {const} */ (['en', 'ko'])).map((language) => h('button', {
      type: 'button', lang: language, 'aria-pressed': i18n.language === language,
      onclick: () => {
        document.cookie = `language=${language}; path=/; max-age=31536000; samesite=lax`;
        document.documentElement.lang = language;
        i18n.setLanguage(language);
        render();
      },
    }, i18n.t(`do.language-${language}`)))),
    h('div.segments', { role: 'group', 'aria-label': i18n.t('topbar.theme') }, (/** @type {const} */ ([['system', 'system'], ['dark', 'moon'], ['light', 'sun']])).map(
      ([choice, name]) => h('button', {
        type: 'button', 'aria-label': i18n.t(`do.theme-${choice}`), title: i18n.t(`do.theme-${choice}`), 'aria-pressed': theme.choice === choice,
        onclick: () => theme.choose(choice),
      }, icon(ICONS[name])),
    )),
  );
}

