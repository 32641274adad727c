/** The model of many nodes (tests/load/nodes-model.mjs): what must hold whatever its figures are. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assumed, measured, model } from '../load/nodes-model.mjs';

test('groups hold all agents, also when one node of each is gone, and larger groups talk more', () => {
  const figures = { ...measured, ...assumed };
  let before = 0;
  for (const size of [2, 3, 4, 6, 8]) {
    const m = model(size, figures);
    assert.ok(m.nodes * m.agentsOfNode >= figures.agents);
    const gone = (m.agentsOfNode * size) / (size - 1);
    assert.ok(gone <= figures.files + 1 && gone * figures.browserKb <= figures.memory * 1e6);
    assert.ok(m.cpu <= figures.share + 1e-3);
    const perAgent = m.megabitsOut / m.agentsOfNode;
    assert.ok(perAgent > before);
    before = perAgent;
  }
});
