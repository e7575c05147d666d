// A device on Microsoft's unmodified SDK, over MQTT in WebSockets.
//
//   npm install azure-iot-device azure-iot-device-mqtt
//   export NODE_EXTRA_CA_CERTS=muster-data/tls/ca.pem
//   node device.js 'HostName=...;DeviceId=...;SharedAccessKey=...'
const { Client, Message } = require('azure-iot-device');
const { MqttWs } = require('azure-iot-device-mqtt');

async function main(connectionString) {
  const client = Client.fromConnectionString(connectionString, MqttWs);
  await client.open();
  console.log('connected');

  client.onDeviceMethod('reboot', (request, response) => {
    console.log('reboot called with', JSON.stringify(request.payload));
    response.send(200, { rebootingIn: request.payload.delay }, () => {});
  });

  const twin = await client.getTwin();
  const report = (patch) => twin.properties.reported.update(patch, (error) => {
    console.log(error ? `not reported: ${error.message}` : `reported ${JSON.stringify(patch)}`);
  });
  report({ firmware: '1.0.0' });
  twin.on('properties.desired.interval', (interval) => {
    console.log('interval is to be', interval);
    report({ interval });
  });

  await client.sendEvent(new Message(JSON.stringify({ temperature: 21.5 })));
  console.log('telemetry accepted');
}

main(process.argv[2]).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
