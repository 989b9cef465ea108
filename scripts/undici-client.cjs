// In the built program this stands for undici: what kube/connections.ts uses of it, put together as undici's own index does, and nothing else.
const Dispatcher = require('../node_modules/undici/lib/dispatcher/dispatcher.js');
const api = require('../node_modules/undici/lib/api/index.js');

Object.assign(Dispatcher.prototype, api);

module.exports = {
  Client: require('../node_modules/undici/lib/dispatcher/client.js'),
  buildConnector: require('../node_modules/undici/lib/core/connect.js'),
};
