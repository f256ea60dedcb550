import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.net.URI;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

import io.grpc.CallOptions;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.ServerServiceDefinition;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;

/** grpc-java as a server (GrpcPeer serve PORT) and as a client (GrpcPeer call CA), with raw bytes for messages. */
final class GrpcPeer {
    private static final Metadata.Key<String> WHY = Metadata.Key.of("why", Metadata.ASCII_STRING_MARSHALLER);
    private static final Map<String, ManagedChannel> CHANNELS = new ConcurrentHashMap<>();

    public static void main(String[] args) throws Exception {
        if (args[0].equals("serve")) {
            NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[1])))
                .addService(service()).build().start().awaitTermination();
        } else {
            Exchange.all(e -> call(e, args[1]));
            CHANNELS.values().forEach(ManagedChannel::shutdownNow);
        }
    }

    private static final MethodDescriptor.Marshaller<byte[]> RAW = new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(byte[] message) {
            return new ByteArrayInputStream(message);
        }

        @Override
        public byte[] parse(InputStream in) {
            try {
                return in.readAllBytes();
            } catch (IOException problem) {
                throw new RuntimeException(problem);
            }
        }
    };

    private static MethodDescriptor<byte[], byte[]> method(String name) {
        MethodType type = switch (name) {
            case "Chat" -> MethodType.BIDI_STREAMING;
            case "Upload" -> MethodType.CLIENT_STREAMING;
            case "Download" -> MethodType.SERVER_STREAMING;
            default -> MethodType.UNARY;
        };
        return MethodDescriptor.newBuilder(RAW, RAW).setType(type).setFullMethodName("battery.Peer/" + name).build();
    }

    private static void sleep(String seconds) {
        try {
            Exchange.sleep(Double.parseDouble(seconds));
        } catch (InterruptedException problem) {
            throw Status.CANCELLED.asRuntimeException();
        }
    }

    private static ServerServiceDefinition service() {
        return ServerServiceDefinition.builder("battery.Peer")
            .addMethod(method("Unary"), ServerCalls.asyncUnaryCall((byte[] message, StreamObserver<byte[]> to) -> {
                sleep(new String(message, 0, Math.min(message.length, 20)).split("\n")[0]);
                to.onNext(message);
                to.onCompleted();
            }))
            .addMethod(method("Fail"), ServerCalls.asyncUnaryCall((byte[] message, StreamObserver<byte[]> to) -> {
                Metadata trailers = new Metadata();
                trailers.put(WHY, "because");
                to.onError(Status.RESOURCE_EXHAUSTED.withDescription("café 100%").asRuntimeException(trailers));
            }))
            .addMethod(method("Chat"), ServerCalls.asyncBidiStreamingCall((StreamObserver<byte[]> to) -> new Echo(to)))
            .addMethod(method("Upload"), ServerCalls.asyncClientStreamingCall((StreamObserver<byte[]> to) -> new Sum(to)))
            .addMethod(method("Download"), ServerCalls.asyncServerStreamingCall((byte[] message, StreamObserver<byte[]> to) -> {
                String[] wanted = new String(message).split(" ");
                for (int n = 0; n < Integer.parseInt(wanted[0]); n++) {
                    if (n > 0) {
                        sleep(wanted[2]);
                    }
                    to.onNext(new byte[Integer.parseInt(wanted[1])]);
                }
                to.onCompleted();
            })).build();
    }

    private static class Echo implements StreamObserver<byte[]> {
        final StreamObserver<byte[]> to;

        Echo(StreamObserver<byte[]> to) {
            this.to = to;
        }

        @Override
        public void onNext(byte[] message) {
            to.onNext(message);
        }

        @Override
        public void onError(Throwable problem) {
        }

        @Override
        public void onCompleted() {
            to.onCompleted();
        }
    }

    private static final class Sum extends Echo {
        private int length;

        Sum(StreamObserver<byte[]> to) {
            super(to);
        }

        @Override
        public void onNext(byte[] message) {
            length += message.length;
        }

        @Override
        public void onCompleted() {
            to.onNext(String.valueOf(length).getBytes());
            to.onCompleted();
        }
    }

    private static ManagedChannel channel(URI at, String ca) {
        return CHANNELS.computeIfAbsent(at.getAuthority(), to -> {
            NettyChannelBuilder builder = NettyChannelBuilder.forTarget(to);
            try {
                return at.getScheme().equals("https")
                    ? builder.sslContext(GrpcSslContexts.forClient().trustManager(new File(ca)).build()).build()
                    : builder.usePlaintext().build();
            } catch (IOException problem) {
                throw new RuntimeException(problem);
            }
        });
    }

    private static Map<String, Object> call(Exchange e, String ca) throws Exception {
        Map<String, Object> result = new LinkedHashMap<>();
        try {
            result.put("length", lengthOf(e, ca));
            result.put("status", 0);
        } catch (StatusRuntimeException problem) {
            String why = problem.getTrailers() == null ? null : problem.getTrailers().get(WHY);
            result.put("status", problem.getStatus().getCode().value());
            result.put("text", String.valueOf(problem.getStatus().getDescription()));
            result.put("trailers", why == null ? Map.of() : Map.of("why", why));
        }
        return result;
    }

    private static int lengthOf(Exchange e, String ca) throws Exception {
        URI at = URI.create(e.url);
        String name = at.getPath().substring(at.getPath().lastIndexOf('/') + 1);
        CallOptions options = CallOptions.DEFAULT.withDeadlineAfter(e.method.equals("deadline") ? 3 : 150, TimeUnit.SECONDS);
        ManagedChannel to = channel(at, ca);
        byte[] message = Arrays.copyOf((e.pause + "\n").getBytes(), (e.pause + "\n").length() + e.body);
        switch (name) {
            case "Upload":
                return upload(e, to.newCall(method(name), options));
            case "Chat":
                return chat(e, message, to.newCall(method(name), options));
            case "Download":
                int count = e.pause > 0 ? 2 : 40;
                int length = 0;
                var answers = ClientCalls.blockingServerStreamingCall(to, method(name), options, (count + " " + e.body / count + " " + e.pause).getBytes());
                while (answers.hasNext()) {
                    length += answers.next().length;
                }
                return length;
            default:
                if (!Arrays.equals(ClientCalls.blockingUnaryCall(to, method(name), options, message), message)) {
                    throw new IllegalStateException("another message came back");
                }
                return e.body;
        }
    }

    /** What comes back on a stream: messages, then a Throwable or this object's END. */
    private static final class Answers implements StreamObserver<byte[]> {
        static final Object END = new Object();
        final BlockingQueue<Object> queue = new LinkedBlockingQueue<>();

        @Override
        public void onNext(byte[] message) {
            queue.add(message);
        }

        @Override
        public void onError(Throwable problem) {
            queue.add(problem);
        }

        @Override
        public void onCompleted() {
            queue.add(END);
        }

        Object next() throws Exception {
            Object next = queue.take();
            if (next instanceof StatusRuntimeException problem) {
                throw problem;
            }
            return next;
        }
    }

    private static int upload(Exchange e, io.grpc.ClientCall<byte[], byte[]> call) throws Exception {
        Answers answers = new Answers();
        StreamObserver<byte[]> to = ClientCalls.asyncClientStreamingCall(call, answers);
        for (int n = 0; n < 40; n++) {
            if (n == 20) {
                Exchange.sleep(e.pause);
            }
            to.onNext(new byte[e.body / 40]);
        }
        to.onCompleted();
        return Integer.parseInt(new String((byte[]) answers.next()));
    }

    private static int chat(Exchange e, byte[] message, io.grpc.ClientCall<byte[], byte[]> call) throws Exception {
        Answers answers = new Answers();
        StreamObserver<byte[]> to = ClientCalls.asyncBidiStreamingCall(call, answers);
        for (int n = 0; n < 2; n++) {
            if (n > 0) {
                Exchange.sleep(e.pause);
            }
            to.onNext(message);
            if (!Arrays.equals((byte[]) answers.next(), message)) {
                throw new IllegalStateException("another message came back");
            }
        }
        to.onCompleted();
        if (answers.next() != Answers.END) {
            throw new IllegalStateException("a message too many");
        }
        return e.body;
    }
}
