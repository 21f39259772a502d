import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;

/** Sends a file from one thread and saves what comes back in another: BlockingClient PORT FILE SAVED. */
class BlockingClient {
    public static void main(String[] arguments) throws Exception {
        try (Socket socket = new Socket("127.0.0.1", Integer.parseInt(arguments[0]))) {
            socket.setTcpNoDelay(true);
            socket.setSoTimeout(60_000); // reads become poll() and recv()
            Thread sender = new Thread(() -> send(socket, Path.of(arguments[1])));
            sender.start();
            Files.copy(socket.getInputStream(), Path.of(arguments[2]));
            sender.join();
        }
    }

    static void send(Socket socket, Path file) {
        try {
            Files.copy(file, socket.getOutputStream());
            socket.shutdownOutput();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
