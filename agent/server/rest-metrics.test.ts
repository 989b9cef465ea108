import { expect, it } from 'vitest';
import { createRegistry } from '../../lib/metrics.ts';
import { createRestMetrics } from './rest-metrics.ts';

it('counts calls of the API server as client-go does', async () => {
  const registry = createRegistry();
  const observe = createRestMetrics(registry);
  observe({ verb: 'GET', host: '10.0.0.1:6443', code: '200', seconds: 0.02 });
  observe({ verb: 'PATCH', host: '10.0.0.1:6443', code: '<error>', seconds: 9 });
  const page = await registry.metrics();
  expect(page).toContain('rest_client_requests_total{code="200",host="10.0.0.1:6443",method="GET"} 1');
  expect(page).toContain('rest_client_requests_total{code="<error>",host="10.0.0.1:6443",method="PATCH"} 1');
  expect(page).toContain('rest_client_request_duration_seconds_bucket{le="0.025",host="10.0.0.1:6443",verb="GET"} 1');
});
