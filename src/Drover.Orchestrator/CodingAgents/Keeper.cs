using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Drover.Orchestrator.CodingAgents;

/// <summary>
/// The small process between the orchestrator and one agent or gate. It is the parent of the whole tree
/// (subreaper: daemons and double forks come back to it), and it ends that tree when told to, when the program
/// itself has ended, and at once when its pipe from the orchestrator closes, which a SIGKILL of the orchestrator
/// does too. Its exit means: nothing of the tree is left, or the survivors were named.
/// </summary>
public static class Keeper
{
    /// <summary>The first argument that makes the <c>drover</c> program a keeper.</summary>
    public const string Argument = "__keeper";

    /// <summary>Runs until the tree has ended. Reads its orders from standard input, reports on standard output; returns the process's exit code.</summary>
    public static int Run()
    {
        if (!OperatingSystem.IsLinux())
            return 2;
        return new KeeperRun().Run();
    }
}

/// <summary>One keeper's life. Threads: main (decides), orders (stdin), two pumps, one reaper; they meet under <c>gate</c>.</summary>
internal sealed class KeeperRun
{
    private static readonly TimeSpan ParentCheck = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan OutputAfterExit = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan KillPatience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan KillStep = TimeSpan.FromMilliseconds(20);

    private const int BusyAttempts = 50;

    private readonly object gate = new();
    private readonly Lock outputGate = new();
    private readonly FileStream orders = new(new SafeFileHandle(0, false), FileAccess.Read, 0);
    private readonly FileStream events = new(new SafeFileHandle(1, false), FileAccess.Write, 0);
    private readonly HashSet<int> leftovers = [];
    private KeeperSpec? spec;
    private bool go, stop, kill, ordersClosed, treeEmpty, eventsBroken;
    private int pumps;
    private int child;
    private int? status;
    private long lastEventAt = Environment.TickCount64;

    internal int Run()
    {
        _ = Native.SetSid(); // fails, harmlessly, when the starter made the session already
        foreach (var signal in (int[])[Native.SigInt, Native.SigHup, Native.SigQuit, Native.SigTerm, Native.SigPipe])
            Native.Ignore(signal); // only the pipe and the orders end a keeper
        Native.CloseAllOnExec();
        if (!Native.BecomeSubreaper())
            return Fail("this kernel has no child subreaper; Drover needs Linux 3.4 or newer");
        StartThread("orders", ReadOrders);
        if (!WaitFor(() => spec is not null, Timeout.InfiniteTimeSpan))
            return 0; // the orchestrator went away before it said what to do
        Emit(new(KeeperEventKind.Ready) { Pid = Environment.ProcessId, StartTicks = ProcessTable.Read(Environment.ProcessId)?.StartTicks ?? 0 });
        if (!WaitFor(() => go, Timeout.InfiniteTimeSpan))
            return 0;
        return RunTarget(spec!);
    }

    private int RunTarget(KeeperSpec what)
    {
        var sink = new OutputSink(what.LogPath, what.OutputCap, what.LineCap, what.Secrets,
            (stream, text, cut) => Emit(new(KeeperEventKind.Line) { Stream = stream, Text = text, Cut = cut }));
        if (Start(what, sink) is { } problem)
        {
            sink.Close();
            return Fail(problem);
        }
        // Also true when stopped or killed: then the orderly end below goes through its steps faster.
        WaitFor(() => status is not null || stop, Timeout.InfiniteTimeSpan);
        if (stop && !Killed)
            Ask(what);
        WaitFor(() => pumps == 0 || stop, OutputAfterExit);
        var survivors = EndTree(what.RunToken);
        WaitFor(() => status is not null && (pumps == 0 || survivors.Count > 0), OutputAfterExit, evenIfKilled: true);
        sink.Close();
        Emit(new(KeeperEventKind.End)
        {
            ExitCode = status is { } exited && (exited & 0x7f) == 0 ? (exited >> 8) & 0xff : null,
            Signal = status is { } signalled && (signalled & 0x7f) != 0 ? signalled & 0x7f : null,
            Received = sink.Received,
            LeftOut = sink.LeftOut,
            Text = sink.Problem ?? "",
            Ended = leftovers.Count,
            Survivors = survivors,
        });
        return 0;
    }

    private bool Killed => kill || ordersClosed;

    /// <summary>Starts the program and the threads that serve it; a text when it could not be started.</summary>
    private string? Start(KeeperSpec what, OutputSink sink)
    {
        SafeFileHandle input;
        try
        {
            input = File.OpenHandle(what.StdinFile ?? "/dev/null");
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return $"cannot open the input of the program: {error.Message}";
        }
        var output = Native.Pipe();
        var errors = Native.Pipe();
        int errno;
        using (input)
        {
            // "Text file busy": a program written a moment ago, of which another process, just being forked, still holds the descriptor.
            for (var attempt = 0; ; attempt++)
            {
                (child, errno) = Spawn.Start(
                    what.File, what.Argv, what.Environment, what.WorkingDirectory, (int)input.DangerousGetHandle(), output.Write, errors.Write);
                if (errno != Native.Etxtbsy || attempt == BusyAttempts)
                    break;
                WaitFor(() => false, KillStep);
            }
        }
        _ = Native.Close(output.Write);
        _ = Native.Close(errors.Write);
        if (child == 0)
            return $"cannot start {what.Argv[0]} in {what.WorkingDirectory}: {Marshal.GetPInvokeErrorMessage(errno)}";
        Emit(new(KeeperEventKind.Started) { Pid = child, StartTicks = ProcessTable.Read(child)?.StartTicks ?? 0 });
        pumps = 2;
        StartThread("stdout", () => Pump(1, output.Read, sink));
        StartThread("stderr", () => Pump(2, errors.Read, sink));
        StartThread("reaper", Reap);
        return null;
    }

    private void ReadOrders()
    {
        try
        {
            KeeperLine.ReadAll(orders, line => Signal(() =>
            {
                if (spec is null)
                {
                    spec = KeeperSpec.FromLine(line.ToArray());
                    return;
                }
                switch (KeeperLine.AsText(line))
                {
                    case "go": go = true; break;
                    case "stop": stop = true; break;
                    case "kill": stop = kill = true; break;
                }
            }));
        }
        catch (IOException)
        {
            // The same as its end: nobody gives orders any more.
        }
        Signal(() => ordersClosed = stop = true);
    }

    private void Pump(int stream, int fd, OutputSink sink)
    {
        using (var pipe = new FileStream(new SafeFileHandle(fd, true), FileAccess.Read, 0))
        {
            var buffer = new byte[64 * 1024];
            for (int read; (read = pipe.Read(buffer)) > 0;)
            {
                sink.Write(stream, buffer.AsSpan(0, read));
                if (Environment.TickCount64 - Interlocked.Read(ref lastEventAt) > 1000)
                    Emit(new(KeeperEventKind.Activity));
            }
        }
        Signal(() => pumps--);
    }

    /// <summary>Waits for every child, adopted ones included. "No child left" proves the tree empty: whatever lives below us has a living ancestor or is our own child.</summary>
    private void Reap()
    {
        while (true)
        {
            var pid = Native.WaitPid(-1, out var ended, 0);
            if (pid == child)
                Signal(() => status = ended);
            if (pid >= 0)
                continue;
            if (Marshal.GetLastPInvokeError() == Native.Eintr)
                continue;
            Signal(() => treeEmpty = true);
            return;
        }
    }

    /// <summary>SIGTERM to everything in the tree, then time to obey. SIGCONT so that a stopped process can obey too.</summary>
    private void Ask(KeeperSpec what)
    {
        foreach (var process in Tree(what.RunToken))
        {
            process.Kill(Native.SigTerm);
            process.Kill(Native.SigCont);
        }
        WaitFor(() => treeEmpty, TimeSpan.FromMilliseconds(what.StopGraceMilliseconds));
    }

    /// <summary>SIGKILL, verify empty, repeat. Counts who had to be ended besides the program itself; returns who outlived it.</summary>
    private IReadOnlyList<ProcessIdentity> EndTree(string token)
    {
        var began = Environment.TickCount64;
        for (var round = 0; ; round++)
        {
            var tree = Tree(token);
            if (tree.Count == 0)
                return [];
            if (Environment.TickCount64 - began > KillPatience.TotalMilliseconds)
                return tree;
            ProcessSweep.KillRound(tree, round);
            foreach (var process in tree)
            {
                if (process.Pid != child)
                    leftovers.Add(process.Pid);
            }
            var wasEmpty = treeEmpty; // then only strangers with our token are left, and nothing will signal their end
            WaitFor(() => treeEmpty && !wasEmpty, KillStep, evenIfKilled: true);
        }
    }

    private static List<ProcessIdentity> Tree(string token)
    {
        var tree = new List<ProcessIdentity>();
        foreach (var entry in ProcessTable.TreeOf(Environment.ProcessId, token))
            tree.Add(ProcessIdentity.Of(entry.Pid, entry.StartTicks));
        return tree;
    }

    /// <summary>
    /// Waits until the condition holds; false when the time is over, or when the orchestrator is gone or wants an end at once.
    /// </summary>
    private bool WaitFor(Func<bool> condition, TimeSpan limit, bool evenIfKilled = false)
    {
        var began = Environment.TickCount64;
        lock (gate)
        {
            while (!condition())
            {
                if (Killed && !evenIfKilled)
                    return false;
                var left = limit == Timeout.InfiniteTimeSpan ? ParentCheck : limit - TimeSpan.FromMilliseconds(Environment.TickCount64 - began);
                if (left <= TimeSpan.Zero)
                    return false;
                Monitor.Wait(gate, left < ParentCheck ? left : ParentCheck);
                // The pipe tells it at once; this covers a pipe end that leaked into another process.
                if (spec is not null && Native.GetParentPid() != spec.Owner)
                    ordersClosed = stop = true;
            }
            return true;
        }
    }

    private void Signal(Action change)
    {
        lock (gate)
        {
            change();
            Monitor.PulseAll(gate);
        }
    }

    private void Emit(KeeperEvent what)
    {
        var line = what.ToLine();
        lock (outputGate)
        {
            Interlocked.Exchange(ref lastEventAt, Environment.TickCount64);
            if (eventsBroken)
                return;
            try
            {
                events.Write(line);
            }
            catch (IOException)
            {
                eventsBroken = true; // the orchestrator is gone; the log goes on until the tree has ended
            }
        }
    }

    private int Fail(string problem)
    {
        Emit(new(KeeperEventKind.Failed) { Text = problem });
        return 0;
    }

    private static void StartThread(string name, Action body) =>
        new Thread(() => body(), 512 * 1024) { IsBackground = true, Name = name }.Start();
}
