// rest_client_*: what the daemon asks of the API server, under client-go's names. Fed by the client, which is there before the agent is.
import { counter, histogram, type MetricsRegistry } from '../../lib/metrics.ts';

const buckets = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60];

/** One call that got an answer or failed; `verb` is the HTTP method, `code` the status or `<error>`. */
export interface RestCall {
  readonly verb: string;
  readonly host: string;
  readonly code: string;
  readonly seconds: number;
}

export function createRestMetrics(registry: MetricsRegistry): (call: RestCall) => void {
  const requests = counter(registry, {
    name: 'rest_client_requests_total',
    help: 'Number of HTTP requests to the API server, by status code, method and host',
    labels: ['code', 'host', 'method'],
  });
  const duration = histogram(registry, {
    name: 'rest_client_request_duration_seconds',
    help: 'Seconds a request to the API server took, by verb and host',
    labels: ['host', 'verb'],
    buckets,
  });
  return ({ verb, host, code, seconds }) => {
    requests.inc({ code, host, method: verb });
    duration.observe({ host, verb }, seconds);
  };
}
