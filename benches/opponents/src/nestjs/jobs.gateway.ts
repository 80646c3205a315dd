import {
  ConnectedSocket,
  MessageBody,
  type OnGatewayConnection,
  type OnGatewayDisconnect,
  SubscribeMessage,
  WebSocketGateway,
  WebSocketServer,
} from '@nestjs/websockets';
import { Redis } from 'ioredis';
import type { Namespace, Socket } from 'socket.io';
import type { JobEvent } from './job-event.js';
import { JobHistory } from './job-history.js';

interface Interest {
  jobId?: string;
  userId?: string;
  since?: number;
}

/** The watchers: who they are, what they watch, and what they get. */
@WebSocketGateway({ namespace: 'jobs' })
export class JobsGateway implements OnGatewayConnection, OnGatewayDisconnect {
  @WebSocketServer()
  private readonly server!: Namespace;

  constructor(
    private readonly redis: Redis,
    private readonly history: JobHistory,
  ) {}

  async handleConnection(client: Socket): Promise<void> {
    await this.redis.hset(`client:${client.id}`, {
      connectedAt: new Date().toISOString(),
      address: client.handshake.address,
      userAgent: client.handshake.headers['user-agent'] ?? '',
      transport: client.conn.transport.name,
    });
  }

  async handleDisconnect(client: Socket): Promise<void> {
    await this.redis.del(`client:${client.id}`, `subscriptions:${client.id}`);
  }

  @SubscribeMessage('subscribe:jobs')
  async subscribe(@ConnectedSocket() client: Socket, @MessageBody() interest: Interest | null | undefined) {
    const { jobId, userId, since } = interest ?? {};
    const room = jobId ? `job:${jobId}` : userId ? `user:${userId}` : 'all-jobs';
    const [latest, missed] = await Promise.all([
      jobId ? this.history.newest(jobId) : null,
      jobId && since !== undefined ? this.history.after(jobId, since) : [],
      this.redis.sadd(`subscriptions:${client.id}`, room),
    ]);
    client.join(room);
    for (const event of missed) client.emit(event.event, event);
    return { success: true, room, message: `Subscribed to ${room}`, latest };
  }

  /** A client in several of the event's rooms gets it once. */
  emit(event: JobEvent): void {
    const rooms = [`job:${event.jobId}`, 'all-jobs'];
    if (event.userId) rooms.push(`user:${event.userId}`);
    this.server.to(rooms).emit(event.event, event);
  }
}
