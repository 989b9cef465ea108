// KubeProxyConfiguration as a kind of configuration document.
import * as v from 'valibot';
import type { DocumentKind } from './load.ts';

const fields = v.looseObject({
  apiVersion: v.optional(v.literal('kubeproxy.config.k8s.io/v1alpha1'), 'kubeproxy.config.k8s.io/v1alpha1'),
  kind: v.optional(v.literal('KubeProxyConfiguration'), 'KubeProxyConfiguration'),
});

export type KubeProxyConfiguration = v.InferOutput<typeof fields>;

export const proxyKind: DocumentKind<KubeProxyConfiguration> = {
  apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
  kind: 'KubeProxyConfiguration',
  schema: fields,
  complete: (value) => value as KubeProxyConfiguration,
  refuse: () => [],
  remark: () => [],
};
