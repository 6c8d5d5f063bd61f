using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Drover.TestKit;

/// <summary>A program of this build in a process of its own, with its output by lines. Ended with the test, whatever happens.</summary>
public sealed partial class ChildProcess : IDisposable
{
    private readonly Process _process;
    private readonly ConcurrentQueue<string> _out = new();
    private readonly ConcurrentQueue<string> _err = new();

    private ChildProcess(Process process) => _process = process;

    public int Id => _process.Id;

    public IEnumerable<string> Lines => _out;

    public string Errors => string.Join('\n', _err);

    /// <summary>Starts a managed program by the name of its assembly beside the tests.</summary>
    public static ChildProcess Start(string assembly, IEnumerable<string> arguments, params (string Name, string? Value)[] environment)
    {
        var start = new ProcessStartInfo(Environment.ProcessPath is { } host && Path.GetFileNameWithoutExtension(host) == "dotnet" ? host : "dotnet")
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        };
        start.ArgumentList.Add(Path.Combine(AppContext.BaseDirectory, assembly + ".dll"));
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        start.Environment["DOTNET_TieredPGO"] = "0";
        foreach ((string name, string? value) in environment)
            start.Environment[name] = value;
        var child = new ChildProcess(new Process { StartInfo = start });
        child._process.OutputDataReceived += (_, line) => Keep(child._out, line.Data);
        child._process.ErrorDataReceived += (_, line) => Keep(child._err, line.Data);
        child._process.Start();
        child._process.BeginOutputReadLine();
        child._process.BeginErrorReadLine();
        return child;
    }

    private static void Keep(ConcurrentQueue<string> lines, string? line)
    {
        if (line is not null)
            lines.Enqueue(line);
    }

    /// <summary>Waits for the end; returns the exit code, 137 after SIGKILL.</summary>
    public async Task<int> ExitAsync(TimeSpan? bound = null)
    {
        using var limit = new CancellationTokenSource(bound ?? TimeSpan.FromSeconds(120));
        try
        {
            await _process.WaitForExitAsync(limit.Token);
        }
        catch (OperationCanceledException)
        {
            throw new TimeoutException($"the child did not end; it said: {string.Join(" | ", _out)}; errors: {Errors}");
        }
        return _process.ExitCode;
    }

    /// <summary>Waits for a line that begins so, and returns it.</summary>
    public async Task<string> LineAsync(string prefix)
    {
        string? found = null;
        await Eventually.TrueAsync(() => (found = _out.FirstOrDefault(l => l.StartsWith(prefix, StringComparison.Ordinal))) is not null || _process.HasExited,
            $"the child says '{prefix}'; it said: {string.Join(" | ", _out)}; errors: {Errors}");
        if (found is null)
        {
            await _process.WaitForExitAsync();
            found = _out.FirstOrDefault(l => l.StartsWith(prefix, StringComparison.Ordinal));
        }
        return found ?? throw new InvalidOperationException($"the child ended with {_process.ExitCode} without saying '{prefix}': {Errors}");
    }

    public bool HasExited => _process.HasExited;

    public void Kill() => Signal(9);

    public void Stop() => Signal(19);

    public void Continue() => Signal(18);

    private void Signal(int signal)
    {
        if (!_process.HasExited)
            _ = Kill(_process.Id, signal);
    }

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int pid, int signal);

    public void Dispose()
    {
        Signal(9);
        _process.WaitForExit();
        _process.Dispose();
    }
}
