// What is told of a certificate that the node keeps young, under the kubelet's names, which differ for its two certificates.
import { counter, gauge, histogram, type MetricsRegistry } from '../../lib/metrics.ts';

export interface CertificateMetrics {
  /** One was asked for and did not come. */
  failed(): void;
  /** One took the place of another, `ageMs` old; undefined where there was none. */
  rotated(ageMs: number | undefined): void;
}

/** What may be shown of a certificate: `expiresAtMs` in milliseconds since the epoch, undefined while there is none. */
export interface ShownCertificate {
  readonly what: 'client' | 'server';
  nowMs(): number;
  expiresAtMs(): number | undefined;
}

const ages = [60, 3600, 14_400, 86_400, 604_800, 2_592_000, 7_776_000, 15_552_000, 31_104_000, 124_416_000];

export function createCertificateMetrics(registry: MetricsRegistry, shown: ShownCertificate): CertificateMetrics {
  const { what } = shown;
  gauge(registry, {
    name: `kubelet_certificate_manager_${what}_ttl_seconds`,
    help: `Seconds until the ${what} certificate expires; below 0: it has; +Inf: there is none`,
    value() {
      const untilMs = shown.expiresAtMs();
      return untilMs === undefined ? Number.POSITIVE_INFINITY : Math.trunc((untilMs - shown.nowMs()) / 1000);
    },
  });
  const errors = counter(registry, {
    name:
      what === 'client'
        ? 'kubelet_certificate_manager_client_expiration_renew_errors'
        : 'kubelet_server_expiration_renew_errors',
    help: `Number of errors when renewing the ${what} certificate`,
  });
  const rotations =
    what === 'client'
      ? undefined
      : histogram(registry, {
          name: 'kubelet_certificate_manager_server_rotation_seconds',
          help: 'Seconds that the previous serving certificate lived before it was replaced',
          buckets: ages,
        });
  return {
    failed: () => errors.inc(),
    rotated(ageMs) {
      if (ageMs !== undefined) rotations?.observe(ageMs / 1000);
    },
  };
}
