import java.io.IOException;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.InetAddress;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;

/**
 * A server on a real JVM: a large heap that is alive, full collections on demand, a shutdown hook.
 *
 *     java JvmServer HOME WITNESS PORT BOOTTIME_MINUS_MONOTONIC_NS
 *
 * Active from its start on; writes the witness's lines as sidecar/standin/record.py does: one write of
 * 128 bytes to a file opened with O_APPEND. While HOME/collect exists it collects everything, again and again.
 */
public final class JvmServer {
    private static final int LIVE_MB = 256;
    private static final long TICK_MS = 20;
    private static final long HOOK_MS = 300;
    private static volatile boolean stopping;

    private final FileChannel witness;
    private final String tail;
    private final long offsetNs;

    private JvmServer(Path path, long offsetNs) throws IOException {
        Map<String, String> env = System.getenv();
        this.witness = FileChannel.open(path, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        this.offsetNs = offsetNs;
        this.tail = String.format("%012d %08x %-7d %-70s\n",
            Long.parseLong(env.getOrDefault("SIDECAR_EPOCH", "0")), ThreadLocalRandom.current().nextInt(),
            ProcessHandle.current().pid(), env.get("SIDECAR_NODE"));
    }

    private void write(String kind) throws IOException {
        // nanoTime is CLOCK_MONOTONIC here, which a time namespace without an offset of its own leaves alone
        String line = String.format("%020d %-5s %s", System.nanoTime() + offsetNs, kind, tail);
        ByteBuffer bytes = ByteBuffer.wrap(line.getBytes(StandardCharsets.US_ASCII));
        if (witness.write(bytes) != 128) {
            throw new IOException("the witness took only part of a line");
        }
    }

    public static void main(String[] arguments) throws Exception {
        Path home = Path.of(arguments[0]);
        JvmServer server = new JvmServer(Path.of(arguments[1]), Long.parseLong(arguments[3]));
        List<byte[]> live = new ArrayList<>();
        for (int mb = 0; mb < LIVE_MB; mb++) {
            live.add(new byte[1 << 20]);
        }
        server.write("open");
        ServerSocket port = new ServerSocket(Integer.parseInt(arguments[2]), 50, InetAddress.getLoopbackAddress());
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                Thread.sleep(HOOK_MS);
                stopping = true;
                port.close();
                main.join(1_000);
                server.write("close");
            } catch (IOException | InterruptedException error) {
                Runtime.getRuntime().halt(1);
            }
        }));
        Thread door = new Thread(() -> {
            while (!stopping) {
                try (Socket client = port.accept()) {
                    client.getOutputStream().write('\n');
                } catch (IOException error) {
                    continue; // gone again, or closed for good
                }
            }
        });
        door.setDaemon(true);
        door.start();
        Path collect = home.resolve("collect");
        for (int turn = 0; !stopping; turn++) {
            Thread.sleep(TICK_MS);
            live.set(turn % LIVE_MB, new byte[1 << 20]);
            if (Files.exists(collect)) {
                System.gc();
            }
            server.write("tick");
        }
    }
}
