// The OpenAPI documents kubectl asks for: v3 for each group and version. Schemas say what this control plane knows of a kind: its envelope.
import { createHash } from 'node:crypto';
import { knownGroupVersions } from './discovery.ts';
import { apiVersionOf, type Kind, verbsOf } from './kinds.ts';
import { schemaOf } from './schemas.ts';

interface Document {
  readonly body: string;
  readonly contentType: string;
}

const json = (value: unknown): Document => ({ body: JSON.stringify(value), contentType: 'application/json' });
const documents = new Map<string, string>();

/** Undefined where the path is none of OpenAPI's. */
export function openApi(path: string): Document | undefined {
  if (path === '/openapi/v2') return json({ swagger: '2.0', info, paths: {}, definitions: {} });
  if (path === '/openapi/v3') {
    const paths = knownGroupVersions().map(({ group, version }) => {
      const where = group ? `apis/${group}/${version}` : `api/${version}`;
      const hash = createHash('sha256').update(documentOf(where)!).digest('hex').toUpperCase();
      return [where, { serverRelativeURL: `/openapi/v3/${where}?hash=${hash}` }];
    });
    return json({ paths: Object.fromEntries(paths) });
  }
  const where = path.startsWith('/openapi/v3/') ? path.slice('/openapi/v3/'.length) : undefined;
  const document = where === undefined ? undefined : documentOf(where);
  return document === undefined ? undefined : { body: document, contentType: 'application/json' };
}

const info = { title: 'Kubernetes (stevedore devcluster)', version: 'v1.36.2' };

function documentOf(where: string): string | undefined {
  const known = documents.get(where);
  if (known !== undefined) return known;
  const found = knownGroupVersions().find(
    ({ group, version }) => (group ? `apis/${group}/${version}` : `api/${version}`) === where,
  );
  if (!found) return undefined;
  const schemas: Record<string, unknown> = {};
  const paths: Record<string, unknown> = {};
  for (const kind of found.kinds) {
    Object.assign(schemas, schemaOf(kind));
    Object.assign(paths, pathsOf(kind));
  }
  const document = JSON.stringify({ openapi: '3.0.0', info, paths, components: { schemas } });
  documents.set(where, document);
  return document;
}

const query = (name: string) => ({ name, in: 'query', schema: { type: 'string' } });

function pathsOf(kind: Kind): Record<string, unknown> {
  const { group, version, namespaced, plural, kind: name } = kind.resource;
  const base = `${group ? '/apis/' : '/api/'}${apiVersionOf(kind.resource)}${namespaced ? '/namespaces/{namespace}' : ''}/${plural}`;
  const gvk = { 'x-kubernetes-group-version-kind': { group, version, kind: name } };
  // Strategic merge patches are taken but not named: kubectl then makes them from its own types, whose merge keys are complete.
  const patchTypes = ['application/merge-patch+json', 'application/json-patch+json', 'application/apply-patch+yaml'];
  const write = {
    parameters: [query('dryRun'), query('fieldManager'), query('fieldValidation')],
    responses: {},
    ...gvk,
  };
  const post = { ...write, 'x-kubernetes-action': 'post' };
  if (!verbsOf(kind).includes('patch')) return { [base]: { post } };
  const get = { parameters: [], responses: {}, 'x-kubernetes-action': 'get', ...gvk };
  const content = Object.fromEntries(patchTypes.map((type) => [type, { schema: { type: 'object' } }]));
  return {
    [base]: { get: { ...get, 'x-kubernetes-action': 'list' }, post },
    [`${base}/{name}`]: {
      get,
      put: { ...write, 'x-kubernetes-action': 'put' },
      delete: { ...write, 'x-kubernetes-action': 'delete' },
      patch: { ...write, 'x-kubernetes-action': 'patch', requestBody: { content } },
    },
  };
}
