// Asks over UDP from one socket: `node udp-ask.ts ADDRESS PORT SOURCE_PORT`. For each line on standard input it sends one packet and prints the
// answer, `timeout` after 300 ms, or `refused`.
import { createSocket } from 'node:dgram';
import { createInterface } from 'node:readline';

const [address = '', port = '0', sourcePort = '0'] = process.argv.slice(2);
const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
let answer: ((text: string) => void) | undefined;
socket.on('message', (message) => answer?.(message.toString()));
socket.on('error', (error: NodeJS.ErrnoException) =>
  answer?.(error.code === 'ECONNREFUSED' ? 'refused' : String(error)),
);
await new Promise<void>((resolve) =>
  socket.bind(Number(sourcePort), () => socket.connect(Number(port), address, resolve)),
);
console.log('ready');
for await (const _line of createInterface({ input: process.stdin })) {
  const got = await new Promise<string>((resolve) => {
    const timer = setTimeout(() => resolve('timeout'), 300);
    answer = (text) => {
      clearTimeout(timer);
      resolve(text);
    };
    socket.send('hello');
  });
  console.log(got);
}
socket.close();
