// Connects as it is told on standard input, a JSON line each: `{ id, protocol, address, port, timeoutMs }`; answers `{ id, answer }` with
// what the other side said, `rejected` or `dropped`. Each connection is a new one, from a new port.
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

interface Ask {
  readonly id: number;
  readonly protocol: 'TCP' | 'UDP';
  readonly address: string;
  readonly port: number;
  readonly timeoutMs: number;
}

const answerOf = (error: NodeJS.ErrnoException): string =>
  error.code === 'ECONNREFUSED' ? 'rejected' : `error ${error.code ?? error.message}`;

const tcp = ({ address, port, timeoutMs }: Ask): Promise<string> =>
  new Promise((resolve) => {
    let said = '';
    const socket = connect({ host: address, port, autoSelectFamily: false });
    const timer = setTimeout(() => {
      socket.destroy();
      resolve('dropped');
    }, timeoutMs);
    const end = (answer: string): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    socket.on('connect', () => socket.write('GET / HTTP/1.0\r\n\r\n'));
    socket.on('data', (chunk) => {
      said += chunk.toString('utf8');
    });
    socket.on('end', () => end(said.split('\r\n\r\n')[1] ?? said));
    socket.on('error', (error) => end(answerOf(error)));
  });

const udp = ({ address, port, timeoutMs }: Ask): Promise<string> =>
  new Promise((resolve) => {
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
    const end = (answer: string): void => {
      clearTimeout(timer);
      socket.close();
      resolve(answer);
    };
    const timer = setTimeout(() => end('dropped'), timeoutMs);
    socket.on('message', (message) => end(message.toString()));
    socket.on('error', (error: NodeJS.ErrnoException) => end(answerOf(error)));
    socket.connect(port, address, (error?: NodeJS.ErrnoException) =>
      error ? end(answerOf(error)) : socket.send('hello'),
    );
  });

console.log('ready');
for await (const line of createInterface({ input: process.stdin })) {
  const ask = JSON.parse(line) as Ask;
  const asked = ask.protocol === 'TCP' ? tcp(ask) : udp(ask);
  void asked.then((answer) => console.log(JSON.stringify({ id: ask.id, answer })));
}
