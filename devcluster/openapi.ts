// The OpenAPI v3 documents kubectl asks for before it applies, one for each group and version: which operations there are on each kind, and
// that the server checks fields itself. The fields it does not tell: the API reference does.
import { createHash } from 'node:crypto';
import { apiVersionOf } from '../kube/api-path.ts';
import { type Kind, kinds } from './kinds.ts';

type Schema = Record<string, unknown>;

const parameters = ['dryRun', 'fieldManager', 'fieldValidation'].map((name) => ({
  name,
  in: 'query',
  schema: { type: 'string' },
}));

function pathsOf(kind: Kind): Schema {
  const { group, version, namespaced, plural } = kind.resource;
  const base = `/${whereOf(kind)}${namespaced ? '/namespaces/{namespace}' : ''}/${plural}`;
  const action = (verb: string): Schema => ({
    parameters,
    responses: {},
    'x-kubernetes-action': verb,
    'x-kubernetes-group-version-kind': { group, version, kind: kind.resource.kind },
  });
  if (kind.virtual) return { [base]: { post: action('post') } };
  // Strategic merge patches are taken but not named: kubectl then makes them from its own types, whose merge keys are complete.
  const types = ['application/merge-patch+json', 'application/json-patch+json', 'application/apply-patch+yaml'];
  const content = Object.fromEntries(types.map((type) => [type, { schema: { type: 'object' } }]));
  const [get, put, patch, remove] = ['get', 'put', 'patch', 'delete'].map(action);
  const single = { get, put, delete: remove, patch: { ...patch, requestBody: { content } } };
  return { [base]: { get: action('list'), post: action('post') }, [`${base}/{name}`]: single };
}

const info = { title: 'Kubernetes (stevedore devcluster)', version: 'v1.36.2' };
const whereOf = ({ resource }: Kind): string => `${resource.group ? 'apis' : 'api'}/${apiVersionOf(resource)}`;

const documents = new Map(
  [...Map.groupBy(kinds, whereOf)].map(([where, members]) => {
    const paths = Object.assign({}, ...members.map(pathsOf)) as Schema;
    return [where, JSON.stringify({ openapi: '3.0.0', info, paths, components: { schemas: {} } })];
  }),
);

/** The body of the answer; undefined where the path is none of OpenAPI's. */
export function openApi(path: string): string | undefined {
  if (path !== '/openapi/v3') return documents.get(path.replace('/openapi/v3/', ''));
  const paths = [...documents].map(([where, document]) => {
    const hash = createHash('sha256').update(document).digest('hex').toUpperCase();
    return [where, { serverRelativeURL: `/openapi/v3/${where}?hash=${hash}` }];
  });
  return JSON.stringify({ paths: Object.fromEntries(paths) });
}
