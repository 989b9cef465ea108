import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  fieldEquals,
  matchesFieldSelector,
  matchesLabelSelector,
  matchesNodeSelectorTerms,
  matchesRequirements,
  parseFieldSelector,
  parseLabelSelector,
  SelectorError,
} from './selectors.ts';

const labels = { app: 'web', tier: 'front', 'example.com/size': '10' };

describe('label selectors', () => {
  it.each([
    ['', true],
    ['app=web', true],
    ['app==web', true],
    ['app = web , tier = front', true],
    ['app=db', false],
    ['app!=db', true],
    ['missing!=x', true],
    ['app in (db, web)', true],
    ['app notin (db,web)', false],
    ['missing notin (a)', true],
    ['app', true],
    ['!app', false],
    ['!missing', true],
    ['missing', false],
    ['missing=', false],
    ['example.com/size>9', true],
    ['example.com/size<10', false],
    ['app in (db,web),tier=front,!missing', true],
  ])('%s: %s', (selector, expected) => {
    expect(matchesRequirements(parseLabelSelector(selector), labels)).toBe(expected);
  });

  it.each(['app in web', 'a=b=c', '=', 'a in (b', ',', 'a b'])('refuses %s', (selector) => {
    expect(() => parseLabelSelector(selector)).toThrow(SelectorError);
  });

  it('matches a LabelSelector object; an empty one selects all, an absent one nothing', () => {
    expect(matchesLabelSelector({}, labels)).toBe(true);
    expect(matchesLabelSelector(undefined, labels)).toBe(false);
    expect(matchesLabelSelector({ matchLabels: { app: 'web' } }, labels)).toBe(true);
    expect(matchesLabelSelector({ matchExpressions: [{ key: 'app', operator: 'DoesNotExist' }] }, labels)).toBe(false);
    expect(matchesLabelSelector({ matchLabels: { constructor: 'x' } }, labels)).toBe(false);
  });
});

describe('field selectors', () => {
  it('reads a path of the object; absent is empty', () => {
    const pod = { metadata: { name: 'a' }, spec: { nodeName: 'n1' } };
    expect(matchesFieldSelector(parseFieldSelector('metadata.name=a,spec.nodeName!=n2'), pod)).toBe(true);
    expect(matchesFieldSelector(parseFieldSelector('status.phase='), pod)).toBe(true);
    expect(matchesFieldSelector(parseFieldSelector('spec.nodeName=n2'), pod)).toBe(false);
    expect(() => parseFieldSelector('metadata.name')).toThrow(SelectorError);
  });

  it('any value survives escaping', () => {
    fc.assert(
      fc.property(fc.string(), (value) => {
        const parsed = parseFieldSelector(`${fieldEquals('a.b', value)},c=d`);
        expect(parsed).toEqual([
          { field: 'a.b', value, equal: true },
          { field: 'c', value: 'd', equal: true },
        ]);
      }),
    );
  });
});

describe('node selector terms', () => {
  const node = { metadata: { name: 'n1', labels: { zone: 'a', cores: '8' } } };
  it.each([
    [[], false],
    [[{}], false],
    [[{ matchExpressions: [{ key: 'zone', operator: 'In', values: ['a', 'b'] }] }], true],
    [[{ matchExpressions: [{ key: 'cores', operator: 'Gt', values: ['4'] }] }], true],
    [[{ matchExpressions: [{ key: 'cores', operator: 'Lt', values: ['4'] }] }], false],
    [[{ matchFields: [{ key: 'metadata.name', operator: 'In', values: ['n1'] }] }], true],
    [
      [
        {
          matchExpressions: [{ key: 'zone', operator: 'In', values: ['a'] }],
          matchFields: [{ key: 'metadata.name', operator: 'In', values: ['n2'] }],
        },
        { matchExpressions: [{ key: 'zone', operator: 'Exists' }] },
      ],
      true,
    ],
    [[{ matchExpressions: [{ key: 'zone', operator: 'Sounds' }] }], false],
  ])('%j: %s', (terms, expected) => {
    expect(matchesNodeSelectorTerms(terms, node)).toBe(expected);
  });
});
