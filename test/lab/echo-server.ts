// Answers on TCP (HTTP) and UDP with its own name and the address it is asked from: `node echo-server.ts NAME PORT`. Prints `ready`.
import { createSocket } from 'node:dgram';
import { createServer } from 'node:http';

const [name = 'server', portText = '8080'] = process.argv.slice(2);
const port = Number(portText);
const plain = (address: string | undefined): string => (address ?? '').replace(/^::ffff:/, '');

const udp = createSocket({ type: 'udp6' });
udp.on('message', (_message, from) => udp.send(`${name} ${plain(from.address)}`, from.port, from.address));
const http = createServer((request, response) => {
  response.setHeader('connection', 'close');
  response.end(`${name} ${plain(request.socket.remoteAddress)}`);
});
udp.bind(port, '::', () => http.listen(port, '::', () => console.log('ready')));
