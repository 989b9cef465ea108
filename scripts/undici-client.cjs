// In the built program this stands for undici: what kube/connections.ts uses of it, and nothing else.
module.exports = {
  Client: require('../node_modules/undici/lib/dispatcher/client.js'),
  buildConnector: require('../node_modules/undici/lib/core/connect.js'),
};
