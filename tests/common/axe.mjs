/** What axe-core has to say about a page. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';

const axe = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/**
 * Fails where axe finds anything in this page, light or dark.
 * @param {import('playwright-core').Page} page
 * @param {string} state what the page shows
 * @param {(theme: string) => Promise<unknown>} [seen] for each theme
 */
export async function accessible(page, state, seen) {
  // (a page that was loaded anew has lost it)
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(axe);
  for (const theme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: theme, reducedMotion: 'reduce' });
    const { violations, passes } = await page.evaluate(() => window.axe.run());
    assert.deepEqual(
      violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html, any }) => `${html.slice(0, 120)} ${any[0]?.message ?? ''}`).join('; ')}`), [],
      `${state}, ${theme}`,
    );
    // (a page without anything in it has no violations either)
    assert.ok(passes.length > 10, `axe found only ${passes.length} rules to look at`);
    await seen?.(theme);
  }
}
