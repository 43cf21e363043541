/**
 * Sets the theme before the first paint, so that a reader of the light theme never sees a dark flash. A classic script
 * on purpose: modules run after the document has been parsed. main.js and pages.js take over with theme.js.
 */
(() => {
  let choice = 'system';
  try {
    choice = JSON.parse(localStorage.getItem('ringside.theme') ?? '"system"');
  } catch {
    choice = 'system';
  }
  const light = choice === 'light' || (choice !== 'dark' && matchMedia('(prefers-color-scheme: light)').matches);
  document.documentElement.dataset.theme = light ? 'light' : 'dark';
})();
