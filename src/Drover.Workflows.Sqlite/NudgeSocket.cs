using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;

namespace Drover.Workflows.Sqlite;

/// <summary>
/// A datagram to the other processes of this machine that have the same database open: "something was committed".
/// Only a hint: whoever misses it sees the commit through <c>data_version</c>.
/// </summary>
internal sealed class NudgeSocket : IDisposable
{
    // Abstract names need no file and vanish with the process. A process takes the first free slot.
    private const int Slots = 16;

    private readonly string _name;
    private readonly bool[] _live = new bool[Slots];
    private readonly byte[][] _addresses;
    private readonly Lock _sendGate = new();
    private long _probedAt = long.MinValue / 2;
    private readonly Socket? _sender;
    private Socket? _receiver;
    private int _slot = -1;

    public NudgeSocket(string databasePath)
    {
        byte[] hash = SHA256.HashData(Encoding.UTF8.GetBytes(databasePath));
        _name = $"\0drover-{Convert.ToHexStringLower(hash.AsSpan(0, 12))}-";
        _addresses = [.. Enumerable.Range(0, Slots).Select(slot => Encoding.UTF8.GetBytes(_name + slot))];
        if (OperatingSystem.IsLinux())
            _sender = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified) { Blocking = false };
    }

    public void Send()
    {
        if (_sender is null)
            return;
        lock (_sendGate)
        {
            // Empty slots are looked at again once a second; a process that started since is woken by its own poll until then.
            long now = Environment.TickCount64;
            bool probe = now - _probedAt >= 1_000;
            if (probe)
                _probedAt = now;
            for (int slot = 0; slot < Slots; slot++)
            {
                if (slot == _slot || (!probe && !_live[slot]))
                    continue;
                // Not the runtime's asynchronous form: one stopped listener with a full queue would hold up the sends to all others.
                _live[slot] = LibC.TrySendDatagram(_sender, _addresses[slot]);
            }
        }
    }

    public IDisposable Listen(Action onSignal)
    {
        if (_sender is null)
            return new Listener(null);
        for (int slot = 0; slot < Slots; slot++)
        {
            var socket = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
            try
            {
                socket.Bind(new UnixDomainSocketEndPoint(_name + slot));
            }
            catch (SocketException)
            {
                socket.Dispose();
                continue;
            }
            _slot = slot;
            _receiver = socket;
            _ = ReceiveAsync(socket, onSignal);
            return new Listener(socket);
        }
        return new Listener(null);
    }

    private static async Task ReceiveAsync(Socket socket, Action onSignal)
    {
        byte[] buffer = new byte[8];
        while (true)
        {
            try
            {
                await socket.ReceiveAsync(buffer.AsMemory(), SocketFlags.None).ConfigureAwait(false);
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                return;
            }
            onSignal();
        }
    }

    public void Dispose()
    {
        _sender?.Dispose();
        _receiver?.Dispose();
    }

    private sealed class Listener(Socket? socket) : IDisposable
    {
        public void Dispose() => socket?.Dispose();
    }
}
