/** The real rtpengine on loopback, without its kernel module. */
import { spawn } from 'node:child_process';
import dgram from 'node:dgram';
import { onExit, signal, until } from './cleanup.mjs';
import { freePorts, releasePorts } from './ports.mjs';

/** Whether a ping over its control protocol is answered. @param {number} port */
const answers = (port) => new Promise((done) => {
  const socket = dgram.createSocket('udp4');
  const end = (value) => { clearTimeout(timer); socket.close(); done(value); };
  const timer = setTimeout(end, 300, false);
  socket.on('message', (data) => end(/pong/.test(data.toString())));
  socket.on('error', () => end(false));
  socket.send('1 d7:command4:pinge', port, '127.0.0.1');
});

/** Starts it and returns when it answers. */
export async function startRtpengine() {
  const count = 40;
  const port = await freePorts(count);
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', 'rtpengine', '--foreground', '--log-stderr', '--log-level=6', '--table=-1', '--config-file=none',
    '--interface=127.0.0.1', `--listen-ng=127.0.0.1:${port}`, `--port-min=${port + 1}`, `--port-max=${port + count - 1}`], { stdio: ['ignore', 'ignore', 'pipe'] });
  let text = '';
  child.stderr.on('data', (data) => { text += data; });
  const ended = new Promise((done) => { child.once('exit', done); child.once('error', done); });
  const forget = onExit(() => signal(child.pid, 'SIGKILL'));
  const rtpengine = {
    port,
    log: () => text,
    async stop() {
      signal(child.pid, 'SIGTERM');
      await Promise.race([ended, new Promise((done) => { setTimeout(done, 3000).unref(); })]);
      signal(child.pid, 'SIGKILL');
      forget();
      releasePorts(port, count);
    },
  };
  try {
    await until(async () => {
      if (child.exitCode !== null || child.pid === undefined) throw new Error('rtpengine ended at once');
      return answers(port);
    }, { ms: 10_000, what: 'rtpengine is ready' });
  } catch (error) {
    await rtpengine.stop();
    throw new Error(`${error.message}\n${text.slice(-3000)}`);
  }
  return rtpengine;
}
