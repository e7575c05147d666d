// An application on Microsoft's unmodified SDK.
//
//   npm install azure-iothub
//   export NODE_EXTRA_CA_CERTS=muster-data/tls/ca.pem
//   export HUB="$(muster connection-string)"
//   node service.js register thermostat-1   (prints the device's connection string)
//   node service.js manage thermostat-1     (while device.js runs)
const { Client, Registry } = require('azure-iothub');

const hub = process.env.HUB;

async function register(deviceId) {
  const { responseBody: device } = await Registry.fromConnectionString(hub).create({ deviceId });
  const host = /HostName=([^;]+)/.exec(hub)[1];
  console.log(`HostName=${host};DeviceId=${deviceId};SharedAccessKey=${device.authentication.symmetricKey.primaryKey}`);
}

async function manage(deviceId) {
  const { responseBody: twin } = await Registry.fromConnectionString(hub).getTwin(deviceId);
  console.log('firmware is', twin.properties.reported.firmware);
  await twin.update({ tags: { site: 'attic' }, properties: { desired: { interval: 5 } } });
  console.log('interval asked for');

  const { result } = await Client.fromConnectionString(hub).invokeDeviceMethod(deviceId, { methodName: 'reboot', payload: { delay: 3 } });
  console.log('reboot answered', JSON.stringify(result));
}

const [, , command, deviceId] = process.argv;
({ register, manage })[command](deviceId).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
