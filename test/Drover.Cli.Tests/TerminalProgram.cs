using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Drover.TestKit;

namespace Drover.Cli.Tests;

/// <summary>A drover on a pseudo-terminal. <c>script</c> gives it one; what is written to its input is typed there.</summary>
public sealed partial class TerminalProgram : IDisposable
{
    private readonly Process _script;
    private readonly StringBuilder _screen = new();
    private readonly Task _reading;

    public TerminalProgram(DroverProgram program, params string[] arguments)
    {
        ProcessStartInfo drover = program.StartInfo(program.Root, arguments);
        string command = "exec " + string.Join(' ', drover.ArgumentList.Prepend(drover.FileName).Select(a => $"'{a}'"));
        var start = new ProcessStartInfo("script") { WorkingDirectory = program.Root, RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string argument in (string[])["--quiet", "--flush", "--return", "--command", command, "/dev/null"])
            start.ArgumentList.Add(argument);
        start.Environment.Clear();
        foreach ((string name, string? value) in drover.Environment)
            start.Environment[name] = value;
        start.Environment["TERM"] = "xterm";
        start.Environment["SHELL"] = "/bin/sh";
        _script = Process.Start(start)!;
        _reading = ReadAsync();
    }

    /// <summary>Everything that was shown so far, without the terminal's control codes.</summary>
    public string Screen
    {
        get
        {
            lock (_screen)
                return Controls().Replace(_screen.ToString(), "");
        }
    }

    /// <summary>Whether the terminal is left with a cursor.</summary>
    public bool CursorIsVisible
    {
        get
        {
            lock (_screen)
                return _screen.ToString().LastIndexOf("\x1b[?25h", StringComparison.Ordinal) >= _screen.ToString().LastIndexOf("\x1b[?25l", StringComparison.Ordinal);
        }
    }

    public Task ShowsAsync(string text) => Eventually.TrueAsync(() => Screen.Contains(text, StringComparison.Ordinal) || Gone(text), $"'{text}' on the terminal");

    public Task MatchesAsync(string pattern) => Eventually.TrueAsync(() => Regex.IsMatch(Screen, pattern) || Gone(pattern), $"'{pattern}' on the terminal");

    public async Task TypeAsync(string keys)
    {
        await _script.StandardInput.WriteAsync(keys);
        await _script.StandardInput.FlushAsync();
    }

    /// <summary>Closes the terminal's window.</summary>
    public void Close()
    {
        _script.Kill();
        _script.WaitForExit();
    }

    /// <summary>Waits for the program's end; returns its exit code.</summary>
    public async Task<int> EndAsync()
    {
        using var bound = new CancellationTokenSource(TimeSpan.FromSeconds(90));
        await _script.WaitForExitAsync(bound.Token);
        await _reading.WaitAsync(bound.Token);
        return _script.ExitCode;
    }

    // Characters, not lines: a display that is drawn in place may never end its last line.
    private async Task ReadAsync()
    {
        var buffer = new char[4096];
        int read;
        while ((read = await _script.StandardOutput.ReadAsync(buffer)) > 0)
        {
            lock (_screen)
                _screen.Append(buffer, 0, read);
        }
    }

    private bool Gone(string wanted) => _script.HasExited && _reading.IsCompleted && !Screen.Contains(wanted, StringComparison.Ordinal)
        ? throw new InvalidOperationException(string.Create(CultureInfo.InvariantCulture, $"drover ended with {_script.ExitCode} and never showed '{wanted}': {Screen}")) : false;

    [GeneratedRegex("\\x1b(\\[[0-9;?]*[A-Za-z]|[()][A-Z0-9])")]
    private static partial Regex Controls();

    public void Dispose()
    {
        if (!_script.HasExited)
            _script.Kill(entireProcessTree: true);
        _script.Dispose();
    }
}
