// A client that calls a URL again and again, each time over a new connection and never two at once, until SIGTERM; then it prints what came of it.
// Run it with the host's `node`, so that it stands in the host's network.
import { get } from 'node:http';

const [, , url = '', pauseMs = '5'] = process.argv;
const answers: Record<string, number> = {};
const failures: string[] = [];
let calls = 0;
let ending = false;
process.once('SIGTERM', () => {
  ending = true;
});

const call = (): Promise<void> =>
  new Promise((resolve) => {
    const startedAt = Date.now();
    const failed = (why: string): void => {
      failures.push(`${new Date(startedAt).toISOString()} after ${Date.now() - startedAt} ms: ${why}`);
      resolve();
    };
    const request = get(url, { agent: false, timeout: 10_000 }, (response) => {
      let text = '';
      response.on('data', (chunk: Buffer) => {
        text += chunk.toString('utf8');
      });
      response.on('error', (error) => failed(String(error)));
      response.on('end', () => {
        if (response.statusCode !== 200) return failed(`HTTP ${response.statusCode}`);
        answers[text.trim()] = (answers[text.trim()] ?? 0) + 1;
        resolve();
      });
    });
    request.on('timeout', () => request.destroy(new Error('no answer in 10 s')));
    request.on('error', (error) => failed(String(error)));
  });

while (!ending) {
  calls++;
  await call();
  await new Promise((resolve) => setTimeout(resolve, Number(pauseMs)));
}
process.stdout.write(JSON.stringify({ calls, answers, failures }));
