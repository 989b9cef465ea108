// KubeProxyConfiguration as a kind of configuration document.
import type * as v from 'valibot';
import {
  completeKubeProxyConfiguration,
  type KubeProxyConfiguration,
  kubeProxyApiVersion,
  kubeProxyConfigurationFields,
} from '../../proxy/config.ts';
import { refuseKubeProxyConfiguration, remarkKubeProxyConfiguration } from '../../proxy/config-rules.ts';
import type { DocumentKind } from './load.ts';

export type { KubeProxyConfiguration };

export const proxyKind: DocumentKind<KubeProxyConfiguration> = {
  apiVersion: kubeProxyApiVersion,
  kind: 'KubeProxyConfiguration',
  schema: kubeProxyConfigurationFields,
  complete: (fields) => completeKubeProxyConfiguration(fields as v.InferOutput<typeof kubeProxyConfigurationFields>),
  refuse: refuseKubeProxyConfiguration,
  remark: remarkKubeProxyConfiguration,
};
