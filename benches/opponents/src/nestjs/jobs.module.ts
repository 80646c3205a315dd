import { Module, type OnApplicationShutdown } from '@nestjs/common';
import { Redis } from 'ioredis';
import { JobHistory } from './job-history.js';
import { JobsController } from './jobs.controller.js';
import { JobsGateway } from './jobs.gateway.js';
import { JobsService } from './jobs.service.js';
import { redisProvider } from './redis.js';

@Module({ controllers: [JobsController], providers: [redisProvider, JobHistory, JobsGateway, JobsService] })
export class JobsModule implements OnApplicationShutdown {
  constructor(private readonly redis: Redis) {}

  async onApplicationShutdown(): Promise<void> {
    await this.redis.quit();
  }
}
