import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import type { NestExpressApplication } from '@nestjs/platform-express';
import { JobsModule } from './jobs.module.js';
import { RedisIoAdapter } from './redis-io.adapter.js';

process.env.NODE_ENV ??= 'production';

const app = await NestFactory.create<NestExpressApplication>(JobsModule, { logger: false, bodyParser: false });
app.useBodyParser('json', { limit: '8mb' });
if (process.env.ADAPTER === 'redis') app.useWebSocketAdapter(new RedisIoAdapter(app));
app.enableShutdownHooks();
await app.listen(process.env.PORT ?? 0, '127.0.0.1');
console.log(`listening on ${await app.getUrl()}`);
