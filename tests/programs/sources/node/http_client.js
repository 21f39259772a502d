// Uploads FILE, downloads, and asks more on kept connections, several at once: http_client.js URL FILE
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');

const [url, file] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: 2 });

function ask(method, path, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(url + path, { method, agent }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => resolve(Buffer.concat(parts)));
      response.on('error', reject);
    });
    request.on('error', reject);
    if (body) body.pipe(request);
    else request.end();
  });
}

async function main() {
  console.log('sent', (await ask('POST', '/sum', fs.createReadStream(file))).toString());
  const got = await ask('GET', '/stream');
  console.log('got', crypto.createHash('sha256').update(got).digest('hex'));
  const answers = await Promise.all([0, 1, 2, 3, 4].map((number) => ask('GET', `/hello/${number}`)));
  answers.forEach((text) => console.log('said', text.toString()));
  agent.destroy();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
